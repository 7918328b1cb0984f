"""Read request bodies, chunked or not, within limits of size and time."""

import time
from wsgiref.types import WSGIEnvironment

from flask import Request
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, RequestTimeout

from container.serving.http.connection import (
    clear_read_deadline,
    connection_of,
    set_read_deadline,
)

# A client that sends all before it reads receives an early response only if its body is drained.
MAX_DRAINED_BYTES = 128 * 2**20

CHUNK_BYTES = 2**16


def read_body(request: Request, max_bytes: int, seconds: float) -> bytes:
    """Read the body.

    Raises:
        RequestEntityTooLarge: it is longer than `max_bytes`.
        RequestTimeout: the client stalls, or the body takes more than `seconds`.
        BadRequest: it ended early, or its chunks are malformed.
    """
    length = request.content_length
    data = b""
    if length is None or length <= max_bytes:
        data = _read(request.environ, max_bytes + 1, seconds)
    if max(len(data), length or 0) > max_bytes:
        raise RequestEntityTooLarge(
            f"the body is larger than {max_bytes // 2**20} MB (SAGEMAKER_MAX_PAYLOAD_IN_MB)"
        )
    if length is not None and len(data) < length:
        raise BadRequest(f"the body ended after {len(data)} of {length} bytes")
    return data


def drain_body(environ: WSGIEnvironment, seconds: float) -> bool:
    """Discard the rest of the body.

    Returns:
        Whether its end was reached within `seconds`, without a stall of `seconds / 4`.
    """
    connection = connection_of(environ)
    timeout = connection.gettimeout() if connection else None
    deadline, left = time.monotonic() + seconds, MAX_DRAINED_BYTES
    try:
        if connection:
            connection.settimeout(seconds / 4)
        while left > 0 and time.monotonic() < deadline:
            chunk = environ["wsgi.input"].read(CHUNK_BYTES)
            if not chunk:
                return True
            left -= len(chunk)
    except Exception:  # noqa: BLE001 - a stall, or gunicorn's error for a malformed body
        return False
    finally:
        if connection:
            connection.settimeout(timeout)
    return False


def _read(environ: WSGIEnvironment, size: int, seconds: float) -> bytes:
    """Read up to `size` bytes; the stream ends at the end of the body, chunked or not."""
    connection, deadline = connection_of(environ), time.monotonic() + seconds
    set_read_deadline(connection, seconds)
    try:
        # gunicorn's stream: werkzeug's limited stream would truncate a chunked body silently.
        data: bytes = environ["wsgi.input"].read(size)
    except TimeoutError:
        raise RequestTimeout("the client stopped sending the body") from None
    except Exception as error:  # noqa: BLE001 - gunicorn has many types for a malformed body
        data, reason = b"", f"the chunked body is malformed: {error}"
    else:
        reason = ""
    finally:
        clear_read_deadline(connection)
    if time.monotonic() > deadline:
        raise RequestTimeout(f"the body took more than {seconds:.0f} seconds")
    if reason:
        raise BadRequest(reason)
    return data
