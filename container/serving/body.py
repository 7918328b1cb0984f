"""A request's body, chunked or not, within the limits."""

import time
from contextlib import suppress

from flask import Request
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge

# A client that sends before it reads sees our answer only when its body is read. gunicorn itself
# reads 64 KB of what is left, then closes the connection, and the answer is lost.
DISCARDED_BYTES, DISCARDING_SECONDS = 128 * 2**20, 1.0

CHUNK_BYTES = 2**16


def read_body(request: Request, max_bytes: int) -> bytes:
    """Read the body.

    Raises:
        RequestEntityTooLarge: it is longer than `max_bytes`.
        BadRequest: it is empty, or ended early.
    """
    length = request.content_length
    data = b""
    if length is None or length <= max_bytes:
        # gunicorn ends this stream where the body ends, chunked or not. werkzeug's own limit cuts a
        # chunked body at it without a word.
        data = request.environ["wsgi.input"].read(max_bytes + 1)
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


def discard_body(request: Request) -> None:
    """Read what is left of the body, so that the client comes to read our refusal."""
    stream = request.environ["wsgi.input"]
    left, deadline = DISCARDED_BYTES, time.monotonic() + DISCARDING_SECONDS
    with suppress(OSError):
        if socket := request.environ.get("gunicorn.socket"):
            # A client that has stopped sending must not keep this thread.
            socket.settimeout(DISCARDING_SECONDS)
        while left > 0 and time.monotonic() < deadline:
            chunk = stream.read(CHUNK_BYTES)
            if not chunk:
                break
            left -= len(chunk)
