"""What the server asks of a client's connection without reading from it."""

import select
import socket
from collections.abc import Callable
from contextvars import ContextVar
from wsgiref.types import WSGIEnvironment

ARRIVAL: ContextVar[float] = ContextVar("arrival")
"""When the request came that this thread handles, by `time.monotonic`."""

FORCE_CLOSE: ContextVar[Callable[[], None]] = ContextVar("force_close", default=lambda: None)
"""Has the connection closed behind the answer of the request that this thread handles."""

# macOS says of a half-closed connection only that it can be read.
_HUNG_UP = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR


def connection_of(environ: WSGIEnvironment) -> socket.socket | None:
    """Return gunicorn's socket; Flask's test client has none."""
    connection: socket.socket | None = environ.get("gunicorn.socket")
    return connection


def first_bytes(connection: socket.socket, size: int) -> bytes | None:
    """Return the first bytes of what waits to be read, b"" at the end; None where nothing does."""
    try:
        return connection.recv(size, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def has_gone(connection: socket.socket | None) -> bool:
    """Return whether the client has closed the connection, or its side of it.

    No client of ours half-closes a connection whose answer it waits for.
    """
    if connection is None:
        return False
    poll = select.poll()
    try:
        poll.register(connection, _HUNG_UP)
    except (OSError, ValueError):
        return True
    return bool(poll.poll(0))
