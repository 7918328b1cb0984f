"""Refusing unread, over a real pair of sockets."""

import json
import socket
from collections.abc import Iterator

import pytest

from serving.refusal import refuse

Pair = tuple[socket.socket, socket.socket]

HEAD = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"


@pytest.fixture
def pair() -> Iterator[Pair]:
    client, server = socket.socketpair()
    with client, server:
        server.setblocking(False)
        yield client, server


@pytest.mark.parametrize("name", [b"Content-Length: 5", b"content-length:5"])
def test_a_whole_request_is_answered_and_the_next_one_is_left(pair: Pair, name: bytes) -> None:
    client, server = pair
    client.sendall(HEAD + name + b"\r\n\r\nhello" + b"the next one")

    assert refuse(server)

    head, _, body = client.recv(4096).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 1" in head
    assert f"Content-Length: {len(body)}".encode() in head
    assert json.loads(body)["error"]["code"] == "service_unavailable"
    assert server.recv(4096) == b"the next one"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"POST /invocations HTTP/1.1\r\nContent-Length: 0\r\n",
        HEAD + b"Content-Length: 5\r\n\r\nhell",
        HEAD + b"Content-Length: 5\r\nContent-Length: 4\r\n\r\nhello",
        HEAD + b"Content-Length: -5\r\n\r\nhello",
        HEAD + b"\r\nhello",
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
        HEAD + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
        HEAD + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello",
        HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Content-Length: 5\r\n\r\nhello",
    ],
)
def test_anything_else_is_left_as_it_was(pair: Pair, data: bytes) -> None:
    client, server = pair
    client.sendall(data)

    assert not refuse(server)

    client.shutdown(socket.SHUT_WR)
    assert server.recv(4096) == data
