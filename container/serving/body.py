"""A request's body, chunked or not, within the limits."""

import socket
import time
from contextlib import suppress
from wsgiref.types import WSGIEnvironment

from flask import Request
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, RequestTimeout

# Between two pieces of a body. A client that stalls would keep its place and its thread for ever.
STALLED_SECONDS = 10.0

# A client that sends before it reads sees our answer only when its body is read. gunicorn itself
# reads 64 KB of what is left, then closes the connection, and the answer is lost.
DISCARDED_BYTES, DISCARDING_SECONDS, DISCARDING_STALLED_SECONDS = 128 * 2**20, 5.0, 1.0

CHUNK_BYTES = 2**16


def read_body(request: Request, max_bytes: int) -> bytes:
    """Read the body.

    Raises:
        RequestEntityTooLarge: it is longer than `max_bytes`.
        RequestTimeout: the client stalls.
        BadRequest: it is empty, or ended early.
    """
    length = request.content_length
    data = b""
    if length is None or length <= max_bytes:
        _set_timeout(request.environ, STALLED_SECONDS)
        try:
            # gunicorn ends this stream where the body ends, chunked or not. werkzeug's own limit
            # cuts a chunked body at it without a word.
            data = request.environ["wsgi.input"].read(max_bytes + 1)
        except TimeoutError:
            message = f"nothing more of the body came for {STALLED_SECONDS:.0f} seconds"
            raise RequestTimeout(message) from None
    if max(len(data), length or 0) > max_bytes:
        message = f"the body is larger than {max_bytes // 2**20} MB (SAGEMAKER_MAX_PAYLOAD_IN_MB)"
        raise RequestEntityTooLarge(message)
    if not data:
        message = "the body is empty: send a picture"
        raise BadRequest(message)
    if length is not None and len(data) < length:
        message = f"the body ended after {len(data)} of {length} bytes"
        raise BadRequest(message)
    return data


def discard_body(request: Request) -> bool:
    """Read what is left of the body, so that the client comes to read our refusal.

    Returns:
        Whether its end was reached.
    """
    left, deadline = DISCARDED_BYTES, time.monotonic() + DISCARDING_SECONDS
    with suppress(OSError):
        _set_timeout(request.environ, DISCARDING_STALLED_SECONDS)
        while left > 0 and time.monotonic() < deadline:
            chunk = request.environ["wsgi.input"].read(CHUNK_BYTES)
            if not chunk:
                return True
            left -= len(chunk)
    return False


def hang_up(environ: WSGIEnvironment) -> None:
    """End the connection of a client that goes on sending, or does not, what nobody reads.

    gunicorn would wait seconds for its end, in part in the loop that accepts all connections.
    """
    with suppress(OSError):
        if connection := _connection(environ):
            connection.shutdown(socket.SHUT_RDWR)


def _set_timeout(environ: WSGIEnvironment, seconds: float) -> None:
    if connection := _connection(environ):
        connection.settimeout(seconds)


def _connection(environ: WSGIEnvironment) -> socket.socket | None:
    """Return gunicorn's socket; Flask's test client has none."""
    connection: socket.socket | None = environ.get("gunicorn.socket")
    return connection
