"""gunicorn's thread worker, with a door: who finds no thread free waits outside, unread.

gunicorn hands every connection that can be read to its threads. With more clients than threads,
`/ping` would wait behind predictions, and more threads would only wait in memory. Here the loop
that accepts connections looks at a request's head, and itself waits for one that is not whole. A
POST, or anything else with a body, is work: only so many of these are in threads, the others wait
in the order in which they came, at the price of a socket each. Whoever waits too long, or comes
when too many wait, is refused in the loop itself. Everything else, `/ping` above all, goes to a
thread at once, as does what manages the models of a multi-model endpoint.
"""

import errno
import logging
import re
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from selectors import EVENT_READ
from typing import Any

from gunicorn.arbiter import Arbiter
from gunicorn.http.errors import ParseException
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, TConn, ThreadWorker

from container.classifier.errors import UserError
from container.serving.http.connection import ARRIVAL, FORCE_CLOSE, first_bytes, has_gone
from container.serving.http.metrics import Metrics
from container.serving.model.threads import Threads
from container.serving.server.heartbeat import Heartbeat
from container.serving.server.refusal import (
    END_OF_HEAD,
    HEAD_BYTES,
    HEAD_TOO_LONG,
    LAST_ANSWER,
    SHORT_HEAD_BYTES,
    Refusal,
)

logger = logging.getLogger(__name__)

# A POST, or a body that the client may take its time with.
WORK = re.compile(
    rb"POST|.*\r\n(?:content-length *:(?! *0+ *(?:\r|$))|transfer-encoding *:)",
    re.DOTALL | re.IGNORECASE,
)

# Loading and unloading models takes long, and the platform counts on it: it is never refused, and
# has threads of its own.
MANAGEMENT = (b"POST /models ", b"DELETE /models/")
MANAGING_THREADS = 16

# For all of a head. A client that sends no more is closed like one that sends nothing.
HEAD_SECONDS = 30.0

# How exactly the limit of waiting is kept, and how often refusals are told of.
TICK_SECONDS, REPORT_SECONDS = 0.1, 1.0

# For a client to come to the end of a request that is refused, or of our last answer; less where
# nobody new could come in.
PARTING_SECONDS, HURRIED_SECONDS = 5.0, 0.25

# For a client to read so much of an answer's piece that the rest fits into the kernel's buffers.
SENDING_SECONDS = 10.0


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """One process of the server."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - gunicorn's own
        """Open with nobody inside; gunicorn_conf sets the numbers."""
        super().__init__(*arguments, **options)
        self.tmp.close()
        self.tmp: Heartbeat = Heartbeat(self.cfg)
        self.places = self.queue = 1
        """Requests of work in threads, and connections that may wait."""
        self.wait_seconds = 1.0
        self.metrics = Metrics.alone()
        self._inside: set[TConn] = set()
        self._outside: deque[TConn] = deque()
        self._managing: Threads | None = None
        self._refused = 0
        self._reported = time.monotonic()

    def init_process(self) -> None:
        """Serve; end with a sentence where a person can mend what is wrong."""
        try:
            super().init_process()
        except UserError as error:
            self.log.error("%s", error)  # noqa: TRY400 - its sentence is enough
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    def get_thread_pool(self) -> Threads:
        """Make the threads of requests."""
        return Threads(self.cfg.threads, "request")

    def manage_models(self) -> None:
        """Make threads that load and unload models."""
        self._managing = Threads(MANAGING_THREADS, "manage")

    def enqueue_req(self, connection: TConn) -> None:
        """Let a connection with a request in, or have it wait."""
        # gunicorn hands over those that it has read ahead of as its threads left them.
        connection.sock.setblocking(False)
        ahead = _ahead(connection)
        if ahead is None:
            # A new one; gunicorn would let it wait in a thread.
            self._watch(connection)
        elif not ahead:
            self._close(connection)
        elif END_OF_HEAD not in ahead:
            self._wait_for_more(connection, len(ahead))
        else:
            connection.arrival = time.monotonic()
            connection.head_began = None
            head = ahead[: ahead.index(END_OF_HEAD)]
            if self._managing and head.startswith(MANAGEMENT):
                self._let_in(connection, self._managing)
            elif not WORK.match(head):
                self._let_in(connection)
            elif not self._outside and len(self._inside) < self.places:
                self._inside.add(connection)
                self._let_in(connection)
            elif len(self._outside) < self.queue:
                self._outside.append(connection)
            else:
                self._turn_away(connection)

    def accept(self, listener: socket.socket) -> None:
        """Accept a client, unless the door was closed earlier in this turn of the loop."""
        if listener in self.sockets:
            super().accept(listener)

    def handle(self, connection: TConn) -> Any:  # noqa: ANN401 - gunicorn's own
        """Handle a request, in a thread."""
        ARRIVAL.set(connection.arrival)
        return super().handle(connection)

    def handle_request(self, request: Any, connection: TConn) -> Any:  # noqa: ANN401 - gunicorn's own
        """Answer a request, unless the client does not read the answer."""
        FORCE_CLOSE.set(request.force_close)
        connection.sock.settimeout(SENDING_SECONDS)
        try:
            return super().handle_request(request, connection)
        except TimeoutError as error:
            self.log.warning("ip=%s does not read its answer", connection.client[0])
            _reset_when_closed(connection.sock)
            message = "the client does not read"
            # What gunicorn takes for no fault of ours.
            raise ConnectionResetError(errno.ECONNRESET, message) from error

    def _keepalive_after(self, connection: TConn, keepalive: bool) -> bool:  # noqa: FBT001 - gunicorn's own
        """Return whether the connection is kept, which it is not after a body that is damaged."""
        try:
            return bool(super()._keepalive_after(connection, keepalive))
        except ParseException:
            # The request is answered. gunicorn would answer it once more.
            return False

    def finish_request(self, connection: TConn, result: "Future[Any]") -> None:
        """Take the connection back, in the loop, and let the next ones in."""
        self._inside.discard(connection)
        # Before the connection's own next request, which may have come as well.
        while self._outside and len(self._inside) < self.places:
            waiting = self._outside.popleft()
            if has_gone(waiting.sock):
                self._close(waiting)
            else:
                self._inside.add(waiting)
                self._let_in(waiting)
        if result.exception() is None and not result.result():
            self._part_from(connection)
        else:
            super().finish_request(connection, result)

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Do a turn of the loop, then refuse whoever has waited too long."""
        is_urgent = self._outside or self.is_full()
        super().wait_for_and_dispatch_events(TICK_SECONDS if is_urgent else timeout)
        self.make_room()
        now = time.monotonic()
        while self._outside and now > self._outside[0].arrival + self.wait_seconds:
            late = self._outside.popleft()
            if has_gone(late.sock):
                self._close(late)
            else:
                self._turn_away(late)
        self.metrics.note_queue(len(self._outside))
        if self._refused and now > self._reported + REPORT_SECONDS:
            logger.warning("refused=%d waiting=%d", self._refused, len(self._outside))
            self._refused, self._reported = 0, now

    def is_full(self) -> bool:
        """Return whether nobody new can come in."""
        return bool(self.nr_conns >= self.worker_connections)

    def make_room(self) -> None:
        """Close connections where all are taken, lest nobody new, with a /ping, came in.

        First those of clients that had some time for our last answer and do not close, then those
        silent for longest, then those that have just been given our last answer.
        """
        while self.alive and self.is_full():
            read_by = time.monotonic() + PARTING_SECONDS - HURRIED_SECONDS
            told = (each for each in self.pending_conns if not getattr(each, "refusal", None))
            oldest = next(told, None)
            # Not the last one, which may have just come.
            has_silent = len(self.keepalived_conns) > 1
            if oldest and (oldest.timeout <= read_by or not has_silent):
                self._forget(oldest)
            elif has_silent:
                oldest = self.keepalived_conns.popleft()
                self.poller.unregister(oldest.sock)
            else:
                return
            self._close(oldest)

    def _wait_for_more(self, connection: TConn, size: int) -> None:
        """Have the loop wait for more of a head than the `size` bytes that are here."""
        now = time.monotonic()
        began = getattr(connection, "head_began", None) or now
        connection.head_began = began
        if size >= HEAD_BYTES:
            self.log.warning("ip=%s sends more than %d bytes of head", connection.client[0], size)
            self.metrics.count_request(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            self._say_last(connection, HEAD_TOO_LONG)
            return
        if now > began + HEAD_SECONDS or has_gone(connection.sock):
            self._close(connection)
            return
        self._watch(connection)

    def _let_in(self, connection: TConn, threads: Threads | None = None) -> None:
        # The thread need not look again.
        connection.data_ready = True
        future = (threads or self.tpool).submit(self.handle, connection)
        finish = partial(self.finish_request, connection)
        future.add_done_callback(partial(self.method_queue.defer, finish))

    def _turn_away(self, connection: TConn) -> None:
        self._refused += 1
        refusal = None if _read_ahead(connection) else Refusal.of(connection.sock)
        if refusal:
            connection.refusal = refusal
            self._see_off(connection, refusal.proceed, self._keep_refused)
        else:
            self._refuse_at_once(connection)

    def murder_pending(self) -> None:
        """Close those that took too long; those that are refused are told first, see `_part_from`.

        Where nobody new could come in, these have less time.
        """
        now = time.monotonic()
        is_hurried = self.alive and self.is_full()
        spared = PARTING_SECONDS - HURRIED_SECONDS if is_hurried else 0.0
        late = [each for each in self.pending_conns if each.timeout <= now + spared]
        for connection in late:
            if getattr(connection, "refusal", None):
                connection.refusal = None
                self._forget(connection)
                self._refuse_at_once(connection)
        super().murder_pending()

    def _refuse_at_once(self, connection: TConn) -> None:
        """Refuse a request that has not come as a whole."""
        self._count_refused()
        self._say_last(connection, LAST_ANSWER)

    def _keep_refused(self, connection: TConn) -> None:
        connection.refusal = None
        self._count_refused()
        self._watch(connection)

    def _count_refused(self) -> None:
        self.metrics.count_refused()
        self.metrics.count_request(HTTPStatus.SERVICE_UNAVAILABLE)

    def _watch(self, connection: TConn) -> None:
        """Have the loop wait for the connection's next bytes, as gunicorn does between requests."""
        connection.set_timeout()
        if not self.alive:
            connection.timeout = time.monotonic() + STOP_KEEPALIVE_LINGER
        self.keepalived_conns.append(connection)
        callback = partial(self.on_client_socket_readable, connection)
        self.poller.register(connection.sock, EVENT_READ, callback)

    def _say_last(self, connection: TConn, answer: bytes) -> None:
        """Answer what has not come as a whole; the connection cannot be kept."""
        with suppress(OSError):
            connection.sock.send(answer)
        self._part_from(connection)

    def _part_from(self, connection: TConn) -> None:
        """Close once the client has, or soon; gunicorn waits for that in the loop, up to 2 s each.

        Closed at once, with bytes of the client's yet to come, it would lose our answer.
        """
        sock: socket.socket = connection.sock
        try:
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(connection)
        else:
            self._see_off(connection, partial(_is_at_end, sock), self._close)

    def _see_off(
        self, connection: TConn, step: Callable[[], bool], end: Callable[[TConn], None]
    ) -> None:
        """Take a step whenever something comes, until one says that it was the last; then `end`.

        Where that takes too long, `murder_pending` ends it; where it fails, it is closed.
        """
        connection.sock.setblocking(False)
        connection.timeout = time.monotonic() + PARTING_SECONDS
        self.pending_conns.append(connection)
        callback = partial(self._take_step, connection, step, end)
        self.poller.register(connection.sock, EVENT_READ, callback)

    def _take_step(
        self,
        connection: TConn,
        step: Callable[[], bool],
        end: Callable[[TConn], None],
        _sock: socket.socket,
    ) -> None:
        try:
            if not step():
                return
        except OSError:
            end = self._close
        self._forget(connection)
        end(connection)

    def _forget(self, connection: TConn) -> None:
        """Have the loop wait no more for one that was seen off."""
        self.poller.unregister(connection.sock)
        self.pending_conns.remove(connection)

    def _close(self, connection: TConn) -> None:
        self.nr_conns -= 1
        connection.close()


def _reset_when_closed(sock: socket.socket) -> None:
    """Have nothing more come or go, and the kernel drop what it still holds for the client."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _is_at_end(sock: socket.socket) -> bool:
    """Read what is here, and return whether nothing can come any more."""
    try:
        return not sock.recv(2**16)
    except BlockingIOError:
        return False


def _read_ahead(connection: TConn) -> bytes:
    """Return what gunicorn has read of a next request while it read the last one's body."""
    data: bytes = connection.parser.unreader.buf.getvalue() if connection.parser else b""
    return data


def _ahead(connection: TConn) -> bytes | None:
    """Return what is here of a request, b"" at the connection's end, None before anything came.

    A short head that came as a whole stays unread, and its body with it; of others, what is here is
    read into the parser's buffer: to look over many segments without reading them takes the kernel
    the square of their number.
    """
    sock: socket.socket = connection.sock
    read = _read_ahead(connection)
    if not read:
        first = first_bytes(sock, SHORT_HEAD_BYTES)
        if not first or END_OF_HEAD in first:
            return first
    elif END_OF_HEAD in read:
        return read
    try:
        more = sock.recv(max(1, HEAD_BYTES - len(read)))
    except BlockingIOError:
        return read
    except OSError:
        return b""
    if not more:
        return b""
    connection.init()
    sock.setblocking(False)
    connection.parser.unreader.unread(connection.parser.unreader.take_buffered() + more)
    return read + more
