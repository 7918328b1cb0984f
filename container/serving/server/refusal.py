"""Refusing a request unread, for a fraction of what its ordinary way costs.

gunicorn's master imports it, by `server.worker`: nothing but the standard library here.
"""

import json
import re
import socket
from collections.abc import Mapping
from http import HTTPStatus
from typing import Self

from container.serving.http.connection import first_bytes
from container.serving.settings import OVERLOADED_MESSAGE, RETRY_AFTER_SECONDS

# Of a head; nobody sends longer ones, and hardly anybody more than is short.
HEAD_BYTES, SHORT_HEAD_BYTES = 2**16, 2**12

# At a time, of a body: the loop has others to see to.
CHUNK_BYTES = 2**20

END_OF_HEAD = b"\r\n\r\n"
PLAIN = re.compile(rb"POST [^\r\n]* HTTP/1\.1\r\n")
LENGTH = re.compile(rb"\r\ncontent-length([^\r\n]*)", re.IGNORECASE)
NUMBER = re.compile(rb": *(\d{1,9}) *")
# Lines that gunicorn does not take as they are, too.
UNUSUAL = re.compile(
    rb"(?<!\r)\n|\r\n(?:[ \t]|transfer-encoding|expect|connection:[^\r\n]*close)", re.IGNORECASE
)


def problem(status: str, message: str) -> Mapping[str, Mapping[str, str]]:
    """Return what is said of an error, to a person and to a program: `{"error": {...}}`."""
    return {"error": {"code": status.lower().replace(" ", "_"), "message": message}}


def _answer(status: HTTPStatus, message: str, *fields: str) -> bytes:
    body = json.dumps(problem(status.phrase, message))
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *fields,
    )
    return "\r\n".join((*head, "", body)).encode()


_RETRY_AFTER = f"Retry-After: {RETRY_AFTER_SECONDS}"
ANSWER = _answer(HTTPStatus.SERVICE_UNAVAILABLE, OVERLOADED_MESSAGE, _RETRY_AFTER)
LAST_ANSWER = _answer(
    HTTPStatus.SERVICE_UNAVAILABLE, OVERLOADED_MESSAGE, _RETRY_AFTER, "Connection: close"
)
HEAD_TOO_LONG = _answer(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    f"the headers have more than {HEAD_BYTES // 1024} KB",
    "Connection: close",
)


class Refusal:
    """A plain request's: the body is read away as it comes, then it is answered with 503.

    A client that sends before it reads sees no earlier answer, and the connection can be kept.
    """

    def __init__(self, connection: socket.socket, unread: int) -> None:
        """Begin with a request of so many bytes, none of them read."""
        self._connection = connection
        self._unread = unread

    @classmethod
    def of(cls, connection: socket.socket) -> Self | None:
        """Return that of the request whose head has come; None where it is no plain, short one."""
        head, end, _ = (first_bytes(connection, SHORT_HEAD_BYTES) or b"").partition(END_OF_HEAD)
        lengths = LENGTH.findall(head)
        number = NUMBER.fullmatch(lengths[0]) if len(lengths) == 1 else None
        if not end or not number or not PLAIN.match(head) or UNUSUAL.search(head):
            return None
        return cls(connection, len(head) + len(end) + int(number[1]))

    def proceed(self) -> bool:
        """Read of the request what is here, without waiting.

        Returns:
            Whether that was all, and is answered.

        Raises:
            OSError: the client has gone, or does not take the answer.
        """
        try:
            data = self._connection.recv(min(self._unread, CHUNK_BYTES), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        if not data:
            message = "the client ended before its request did"
            raise ConnectionResetError(message)
        self._unread -= len(data)
        if self._unread:
            return False
        if self._connection.send(ANSWER) < len(ANSWER):
            message = "the client does not read"
            raise OSError(message)
        return True
