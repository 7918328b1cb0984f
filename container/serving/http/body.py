"""A request's body, chunked or not, within the limits."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from wsgiref.types import WSGIEnvironment

from flask import Request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, RequestTimeout

from container.serving.http.connection import connection_of

# Between two pieces of a body. A client that stalls would keep its place and its thread for ever.
STALLED_SECONDS = 10.0

# A client that sends before it reads sees our answer only when its body is read. gunicorn itself
# reads 64 KB of what is left.
DISCARDED_BYTES, DISCARDING_SECONDS, DISCARDING_STALLED_SECONDS = 128 * 2**20, 5.0, 1.0

CHUNK_BYTES = 2**16

_deadlines: dict[socket.socket, float] = {}


def start_watch() -> None:
    """Watch, in this process and from now on, over the time that bodies may take.

    A socket's timeout is between two pieces only, and gunicorn reads until it has what it was
    asked for. A thread for each body would wait 1.5 ms for its start while others compute.
    """
    threading.Thread(target=_watch, name="watch", daemon=True).start()


def read_body(request: Request, max_bytes: int, seconds: float) -> bytes:
    """Read the body.

    Raises:
        RequestEntityTooLarge: it is longer than `max_bytes`.
        RequestTimeout: the client stalls, or needs more than `seconds`.
        BadRequest: it ended early, or its chunks are none.
    """
    length = request.content_length
    data = b""
    if length is None or length <= max_bytes:
        data = _read_in_time(request.environ, max_bytes + 1, seconds)
    if max(len(data), length or 0) > max_bytes:
        message = f"the body is larger than {max_bytes // 2**20} MB (SAGEMAKER_MAX_PAYLOAD_IN_MB)"
        raise RequestEntityTooLarge(message)
    if length is not None and len(data) < length:
        message = f"the body ended after {len(data)} of {length} bytes"
        raise BadRequest(message)
    return data


def discard_body(request: Request) -> bool:
    """Read what is left of the body, so that the client comes to read our refusal.

    Returns:
        Whether its end was reached.
    """
    left, environ = DISCARDED_BYTES, request.environ
    with (
        suppress(OSError, ParseException),
        _limits(environ, DISCARDING_STALLED_SECONDS, DISCARDING_SECONDS) as deadline,
    ):
        while left > 0 and time.monotonic() < deadline:
            chunk = environ["wsgi.input"].read(CHUNK_BYTES)
            if not chunk:
                return time.monotonic() < deadline
            left -= len(chunk)
    return False


def _read_in_time(environ: WSGIEnvironment, size: int, seconds: float) -> bytes:
    with _limits(environ, STALLED_SECONDS, seconds) as deadline:
        try:
            # gunicorn ends this stream where the body ends, chunked or not. werkzeug's own limit
            # cuts a chunked body at it without a word.
            data: bytes = environ["wsgi.input"].read(size)
        except TimeoutError:
            message = f"nothing more of the body came for {STALLED_SECONDS:.0f} seconds"
            raise RequestTimeout(message) from None
        except (OSError, ParseException) as error:
            data, reason = b"", f"the chunked body is damaged: {error}"
        else:
            reason = ""
    if time.monotonic() > deadline:
        message = f"the body took more than {seconds:.0f} seconds"
        raise RequestTimeout(message)
    if reason:
        raise BadRequest(reason)
    return data


@contextmanager
def _limits(environ: WSGIEnvironment, stalled: float, seconds: float) -> Iterator[float]:
    """Limit the time between two pieces, and that for all; yield when this ends."""
    deadline = time.monotonic() + seconds
    connection = connection_of(environ)
    if connection is None:
        yield deadline
        return
    before = connection.gettimeout()
    connection.settimeout(stalled)
    _deadlines[connection] = deadline
    try:
        yield deadline
    finally:
        del _deadlines[connection]
        connection.settimeout(before)


def _watch() -> None:
    """End what comes from clients that are late, as if they had ended it; they get an answer."""
    while True:
        time.sleep(1)
        now = time.monotonic()
        for connection, deadline in _deadlines.copy().items():
            if now > deadline:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)
