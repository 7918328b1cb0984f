"""A client's connection: whether it is open, how long reads may take, and how it is closed."""

import ctypes
import errno
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, NoReturn
from wsgiref.types import WSGIEnvironment

ARRIVAL = "classifier.arrival"
"""Key in a WSGI environment: when the request arrived, by `time.monotonic`."""

FORCE_CLOSE: ContextVar[Callable[[], None]] = ContextVar("force_close", default=lambda: None)
"""Function that makes gunicorn close the connection after the response of this thread."""

# Time limits: for a request's headers, and without progress of the client.
HEAD_SECONDS, STALL_SECONDS = 30.0, 10.0

# Limits of `linger`: in total, and without a byte from the client.
LINGER_SECONDS, LINGER_STALL_SECONDS = 1.0, 0.25

# Constants of Linux that Python does not name.
_SO_ATTACH_FILTER, _BPF_RETURN = 26, 0x06

# macOS reports a half-closed connection only as readable.
_DISCONNECTED = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR

_read_deadlines: dict[socket.socket, float] = {}


def connection_of(environ: WSGIEnvironment) -> socket.socket | None:
    """Return gunicorn's socket; Flask's test client has none."""
    connection: socket.socket | None = environ.get("gunicorn.socket")
    return connection


def has_disconnected(connection: socket.socket | None) -> bool:
    """Return whether the client has closed the connection, or its sending side."""
    if connection is None:
        return False
    poll = select.poll()
    try:
        poll.register(connection, _DISCONNECTED)
    except (OSError, ValueError):
        return True
    return bool(poll.poll(0))


def linger(connection: socket.socket) -> None:
    """Half-close the connection and wait briefly until the client closes it.

    If it were closed at once, bytes that the client still sends would reset it, and the client
    could lose the response.
    """
    deadline = time.monotonic() + LINGER_SECONDS
    with suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(LINGER_STALL_SECONDS)
        while time.monotonic() < deadline and connection.recv(2**16):
            pass
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RD)


def block_on_sigterm(listeners: Sequence[socket.socket]) -> None:
    """On SIGTERM, drop packets of new clients, and then call the present handler of SIGTERM.

    A client that connected between a worker's last accept and the close of the listener would be
    reset. A client whose packets were dropped retries and finds the port closed.
    """
    handle: Any = signal.getsignal(signal.SIGTERM)

    def block(*arguments: object) -> None:
        # A classic BPF program of one instruction: return 0 bytes of each packet. The buffer must
        # exist until the kernel has copied it.
        program = ctypes.create_string_buffer(struct.pack("HBBI", _BPF_RETURN, 0, 0, 0))
        option = struct.pack("HL", 1, ctypes.addressof(program))
        # gunicorn closes the listeners before a second SIGTERM.
        signal.signal(signal.SIGTERM, handle)
        for listener in listeners:
            with suppress(OSError):  # not on macOS, nor in every sandbox
                listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, option)
        handle(*arguments)

    signal.signal(signal.SIGTERM, block)


def reset(connection: socket.socket) -> NoReturn:
    """Close the connection without sending what the kernel still holds.

    Raises:
        ConnectionResetError: always, because the request cannot continue.
    """
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise ConnectionResetError(errno.ECONNRESET, "the connection was reset")


def start_read_watch() -> None:
    """Start the thread that enforces read deadlines in this process.

    A socket timeout applies to each `recv`, and gunicorn repeats `recv` until it has as many bytes
    as it needs.
    """
    threading.Thread(target=_watch, name="read deadlines", daemon=True).start()


def set_read_deadline(connection: socket.socket | None, seconds: float) -> None:
    """Shut down the read side after `seconds`: reads then end as if the client had closed it."""
    if connection is not None:
        _read_deadlines[connection] = time.monotonic() + seconds


def clear_read_deadline(connection: socket.socket | None) -> None:
    """Remove the deadline, if there is one."""
    if connection is not None:
        _read_deadlines.pop(connection, None)


def _watch() -> None:
    while True:
        time.sleep(1)
        now = time.monotonic()
        for connection, deadline in _read_deadlines.copy().items():
            if now > deadline:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)
