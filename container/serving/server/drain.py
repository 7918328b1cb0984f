"""gunicorn's gthread worker with a drain on SIGTERM.

The only module with names of gunicorn that are not documented: those of the version below.
"""

import select
import socket
import sys

import gunicorn
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer
from gunicorn.http.message import Message
from gunicorn.workers.gthread import TConn, ThreadWorker

from container.classifier.errors import UserError
from container.serving.http.connection import (
    FORCE_CLOSE,
    clear_read_deadline,
    linger,
    set_read_deadline,
)
from container.serving.model.threads import ThreadPool
from container.serving.server.heartbeat import ignore_suspension

VERSION = "27.0.1"
if gunicorn.__version__ != VERSION:
    message = f"gunicorn {VERSION} is needed, found {gunicorn.__version__}: see requirements/"
    raise ImportError(message)

HEAD_SECONDS = 30.0


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """One process of the server."""

    sockets: list[socket.socket]

    def __init__(self, *arguments: object) -> None:
        """Create the worker, in the master."""
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
        """When the worker stops, accept the backlog and close the listeners.

        gunicorn closes them after the last response: clients could connect, wait, and be reset.
        """
        super().set_accept_enabled(enabled and self.alive)
        if self.alive:
            return
        for listener in self.sockets:
            while self.nr_conns < self.worker_connections and has_backlog(listener):
                self.accept(listener)
            # A client that connects between the last poll and this line is reset.
            listener.close()
        self.sockets = []

    def handle(self, conn: TConn) -> object:
        """Handle a request in a thread, within limits of time.

        gunicorn has no timeout for a head, and would wait in its event loop for clients to close.
        """
        set_read_deadline(conn.sock, HEAD_SECONDS)
        is_kept = super().handle(conn)
        clear_read_deadline(conn.sock)
        if not is_kept:
            linger(conn.sock)
        return is_kept


def has_backlog(listener: socket.socket) -> bool:
    """Return whether a client waits to be accepted."""
    return bool(select.select([listener], [], [], 0)[0])


def pre_request(worker: Worker, request: Message) -> None:  # noqa: ARG001 - gunicorn's
    """Let the application close the connection after its response."""
    FORCE_CLOSE.set(request.force_close)


def halt(arbiter: Arbiter, reason: str) -> None:
    """End the server with an exit code, unless it is stopping already."""
    if arbiter.LISTENERS:
        raise HaltServer(reason, Arbiter.WORKER_BOOT_ERROR)
