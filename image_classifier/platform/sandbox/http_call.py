"""One HTTP request, and everything that can go wrong with it."""

import http.client
import math
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# Limit of a response's body, unless a caller expects more.
MAX_BYTES = 10_000_000

REFUSED, NO_RESPONSE = "connection refused", "no response"
NO_END = "a response without an end (no Content-Length, or too large a one)"
CUT_OFF = "connection closed before the end of the response (its Content-Length is too large)"

Address = tuple[str, int]

_CHUNK = 65_536


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """The response to a request, or why none came."""

    seconds: float
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    is_cut: bool = False
    """Whether the body has more bytes, which were not read."""

    problem: str | None = None
    """Why there is no status."""

    @property
    def media_type(self) -> str:
        """The Content-Type without parameters, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return self.status is not None and self.status // 100 == 2  # noqa: PLR2004

    @property
    def is_client_error(self) -> bool:
        """Whether the status is 4xx."""
        return self.status is not None and self.status // 100 == 4  # noqa: PLR2004

    def __str__(self) -> str:
        """Return the evidence: status, media type, start of the body, and the time."""
        if self.status is None:
            return f"{self.problem} after {self.seconds:.1f} s"
        text = " ".join(self.body[:200].decode(errors="backslashreplace").split())
        return f"status {self.status}, {self.media_type or 'no Content-Type'}, {text!r}"


class _Socket(socket.socket):
    """A socket with one deadline for all reads."""

    deadline = math.inf

    def recv_into(self, buffer: "WriteableBuffer", nbytes: int = 0, flags: int = 0) -> int:
        """Receive bytes.

        Raises:
            TimeoutError: none came before the deadline.
        """
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        self.settimeout(seconds)
        return super().recv_into(buffer, nbytes, flags)


class Connection:
    """A connection that sends several requests if the server keeps it open."""

    def __init__(
        self,
        address: Address,
        timeout: float,
        on_timeout: Callable[[int], float] = lambda _local_port: 0,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Connect with the first request.

        Connecting, sending, the wait for the response, and reading it may take `timeout` seconds
        each.

        `on_timeout` is called with the local port when no response has begun in time, and returns
        for how many more seconds to wait. No more than `max_bytes` of a response are read.
        """
        self._timeout, self._on_timeout, self._max_bytes = timeout, on_timeout, max_bytes
        self._http = http.client.HTTPConnection(*address, timeout=timeout)
        self.is_closed_by_server = False

    def close(self) -> None:
        """Close it."""
        self._http.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        is_chunked: bool = False,
    ) -> Response:
        """Send a request; return its response, or what prevented one."""
        start, response = time.monotonic(), None
        try:
            sock = self._connect()
            # A server may respond and close before it has read the whole body.
            with suppress(BrokenPipeError, ConnectionResetError):
                self._http.request(
                    method,
                    path,
                    body=_pieces(body or b"") if is_chunked else body,
                    headers={**(headers or {})},
                    encode_chunked=is_chunked,
                )
            self._await_response(sock)
            # A server that sends a byte now and then would reset a timeout of each read.
            sock.deadline = time.monotonic() + self._timeout
            response = self._http.getresponse()
            content = response.read(self._max_bytes)
        except ConnectionRefusedError:
            problem = REFUSED
        except TimeoutError:
            problem = NO_RESPONSE if response is None else NO_END
        except (OSError, http.client.HTTPException) as error:
            problem = f"connection closed ({type(error).__name__})"
        else:
            is_cut = len(content) == self._max_bytes and not response.isclosed()
            if response.length and not is_cut:
                self._http.close()
                return Response(seconds=time.monotonic() - start, problem=CUT_OFF)
            self.is_closed_by_server = response.will_close
            if is_cut:
                # The next request has a new connection.
                self._http.close()
            return Response(
                seconds=time.monotonic() - start,
                status=response.status,
                headers={key.lower(): value for key, value in response.getheaders()},
                body=content,
                is_cut=is_cut,
            )
        self._http.close()
        return Response(seconds=time.monotonic() - start, problem=problem)

    def _connect(self) -> _Socket:
        """Return the open socket, or a new one."""
        sock = self._http.sock
        if not isinstance(sock, _Socket):
            self._http.connect()
            sock = self._http.sock = _Socket(fileno=self._http.sock.detach())
        sock.settimeout(self._timeout)
        return sock

    def _await_response(self, sock: _Socket) -> None:
        """Wait for the first byte of the response.

        Raises:
            TimeoutError: it did not come in time.
        """
        while True:
            try:
                sock.recv(1, socket.MSG_PEEK)
            except TimeoutError:
                more = self._on_timeout(sock.getsockname()[1])
                if more <= 0:
                    raise
                sock.settimeout(more)
            else:
                return


def call(
    address: Address,
    method: str,
    path: str,
    *,
    timeout: float,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    max_bytes: int = MAX_BYTES,
) -> Response:
    """Send one request on a new connection.

    Args:
        address: host and port.
        method: such as GET.
        path: such as /ping.
        timeout: seconds for each of connecting, sending, the wait for the response, and reading it.
        body: of the request.
        headers: of the request.
        max_bytes: of the response; no more are read.
    """
    with closing(Connection(address, timeout, max_bytes=max_bytes)) as connection:
        return connection.send(method, path, body=body, headers=headers)


def _pieces(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), _CHUNK):
        yield body[start : start + _CHUNK]
