"""Refusing unread, over a real pair of sockets."""

import json
import select
import socket
from collections.abc import Iterator

import pytest

from container.serving.server.refusal import Refusal
from container.serving.server.worker import WORK

Pair = tuple[socket.socket, socket.socket]

HEAD = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"


@pytest.mark.parametrize(
    ("head", "is_work"),
    [
        (b"POST /invocations HTTP/1.1\r\nHost: x", True),
        (b"PUT / HTTP/1.1\r\nContent-Length: 10", True),
        (b"GET /ping HTTP/1.1\r\ntransfer-encoding: chunked", True),
        (b"GET /ping HTTP/1.1\r\nHost: x", False),
        (b"GET /ping HTTP/1.1\r\nContent-Length: 0\r\nHost: x", False),
        (b"GET /ping HTTP/1.1\r\nContent-Length: 0", False),
    ],
)
def test_what_has_a_body_waits_its_turn_and_a_ping_does_not(*, head: bytes, is_work: bool) -> None:
    assert bool(WORK.match(head)) == is_work


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

    refusal = Refusal.of(server)
    assert refusal
    assert refusal.proceed()

    head, _, body = client.recv(4096).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 1" in head
    assert f"Content-Length: {len(body)}".encode() in head
    assert json.loads(body)["error"]["code"] == "service_unavailable"
    assert server.recv(4096) == b"the next one"


def test_a_long_request_is_read_as_it_comes_and_answered_at_its_end(pair: Pair) -> None:
    client, server = pair
    client.sendall(HEAD + b"Content-Length: 300005\r\n\r\nhello")
    refusal = Refusal.of(server)
    assert refusal
    assert not refusal.proceed()
    assert not refusal.proceed(), "nothing has come"

    for _ in range(3):
        client.sendall(bytes(100_000))
        with pytest.raises(BlockingIOError):
            client.recv(1, socket.MSG_DONTWAIT)
        is_done = refusal.proceed()
        # What is here may be more than is read at a time, or come in several pieces.
        while not is_done and select.select([server], [], [], 0)[0]:
            is_done = refusal.proceed()

    assert is_done
    assert client.recv(12) == b"HTTP/1.1 503"


def test_who_ends_within_a_request_is_not_answered(pair: Pair) -> None:
    client, server = pair
    client.sendall(HEAD + b"Content-Length: 5\r\n\r\nhell")
    refusal = Refusal.of(server)
    assert refusal
    client.shutdown(socket.SHUT_WR)

    assert not refusal.proceed()
    with pytest.raises(ConnectionResetError):
        refusal.proceed()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"POST /invocations HTTP/1.1\r\nContent-Length: 0\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 4\r\n\r\nhello",
        HEAD + b"Content-Length: 5\r\nContent-Length:\t4\r\n\r\nhello",
        HEAD + b"Content-Length: 5, 5\r\n\r\nhello",
        HEAD.replace(b"POST", b"HEAD") + b"Content-Length: 5\r\n\r\nhello",
        HEAD.replace(b"1.1", b"1.0") + b"X: HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        HEAD + b"Connection: keep-alive, close\r\nContent-Length: 5\r\n\r\nhello",
        HEAD + b"Content-Length: -5\r\n\r\nhello",
        HEAD + b"\r\nhello",
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
        HEAD + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
        HEAD + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello",
        HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Content-Length: 5\r\n\r\nhello",
        HEAD + b"X: a\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello",
        HEAD + b"X: a\r\n Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello",
    ],
)
def test_anything_else_is_left_as_it_was(pair: Pair, data: bytes) -> None:
    client, server = pair
    client.sendall(data)

    assert Refusal.of(server) is None

    client.shutdown(socket.SHUT_WR)
    assert server.recv(4096) == data
