"""gunicorn's gthread worker with a drain on SIGTERM and limits of time for slow clients.

The only module with undocumented names of gunicorn: those of the version below.
"""

import select
import socket
import sys

import gunicorn
from gunicorn.arbiter import Arbiter
from gunicorn.http.message import Request
from gunicorn.workers.gthread import TConn, ThreadWorker

from container.classifier.errors import UserError
from container.serving.http import connection
from container.serving.model.threads import ThreadPool
from container.serving.server.heartbeat import ignore_suspension

VERSION = "27.0.1"
if gunicorn.__version__ != VERSION:
    raise ImportError(f"gunicorn {VERSION} is needed, found {gunicorn.__version__}")


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """One process of the server."""

    def __init__(self, *arguments: object) -> None:
        """Do not count the time in which the machine was suspended."""
        super().__init__(*arguments)
        self.tmp.last_update = ignore_suspension(self.tmp.last_update)

    def get_thread_pool(self) -> ThreadPool:
        """Start the threads; end the server if the container may not have so many."""
        try:
            return ThreadPool(self.cfg.threads, "request")
        except UserError as error:
            self.log.error("%s", error)  # noqa: TRY400 - the message is enough
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    def set_accept_enabled(self, enabled: bool) -> None:  # noqa: FBT001 - gunicorn's signature
        """After SIGTERM, accept the backlog and close the listeners.

        gunicorn calls this, but would close them last: clients could connect, wait, and be reset.
        """
        super().set_accept_enabled(enabled and self.alive)
        if self.alive:
            return
        for listener in self.sockets:
            while (
                self.nr_conns < self.worker_connections and select.select([listener], [], [], 0)[0]
            ):
                self.accept(listener)
            listener.close()
        self.sockets.clear()

    def handle(self, conn: TConn) -> object:
        """Handle a request in a thread; gunicorn lingers in its event loop, for 2 s a client."""
        connection.set_read_deadline(conn.sock, connection.HEAD_SECONDS)
        is_kept = super().handle(conn)
        connection.clear_read_deadline(conn.sock)
        if not is_kept:
            connection.linger(conn.sock)
        return is_kept

    def handle_request(self, req: Request, conn: TConn) -> object:
        """Respond; reset the connection if the client does not read the response."""
        connection.FORCE_CLOSE.set(req.force_close)
        conn.sock.settimeout(connection.STALL_SECONDS)
        try:
            return super().handle_request(req, conn)
        except TimeoutError:
            self.log.warning("ip=%s does not read its response", conn.client[0])
            connection.reset(conn.sock)


def listeners(arbiter: Arbiter) -> list[socket.socket]:
    """Return the listeners; none after SIGTERM."""
    return list(arbiter.LISTENERS)
