"""Refusing a request unread, for a fraction of what its ordinary way costs.

gunicorn's master imports it, by `serving.worker`: nothing but the standard library here.
"""

import http
import json
import re
import socket

from serving.connection import first_bytes

MESSAGE = "more requests than this server takes are waiting: try again"
RETRY_AFTER_SECONDS = 1

# About what the kernel holds of a connection by itself; of a longer body the rest is yet to come.
WHOLE_BYTES = 2**18

END_OF_HEAD = b"\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d{1,9}) *(?=\r\n)", re.IGNORECASE)
UNUSUAL = re.compile(rb"\r\n(?:transfer-encoding|expect|connection: *close)", re.IGNORECASE)

_STATUS = http.HTTPStatus.SERVICE_UNAVAILABLE
_BODY = json.dumps({"error": {"code": "service_unavailable", "message": MESSAGE}}).encode()
ANSWER = (
    f"HTTP/1.1 {_STATUS.value} {_STATUS.phrase}\r\n"
    f"Content-Type: application/json\r\n"
    f"Content-Length: {len(_BODY)}\r\n"
    f"Retry-After: {RETRY_AFTER_SECONDS}\r\n\r\n"
).encode() + _BODY


def refuse(connection: socket.socket) -> bool:
    """Answer 503 to a plain request that is here as a whole, and keep the connection.

    Returns:
        Whether it was one; any other is left as it was.

    Raises:
        OSError: the client does not take the answer.
    """
    data = first_bytes(connection, WHOLE_BYTES) or b""
    head, end, body = data.partition(END_OF_HEAD)
    head += b"\r\n"
    lengths = LENGTH.findall(head)
    is_usual = b" HTTP/1.1\r\n" in head and not UNUSUAL.search(head) and len(lengths) == 1
    if not end or not is_usual or len(body) < int(lengths[0]):
        return False
    connection.recv(len(data) - len(body) + int(lengths[0]))
    if connection.send(ANSWER) < len(ANSWER):
        message = "the client does not read"
        raise OSError(message)
    return True
