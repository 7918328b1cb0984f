"""Malformed and slow bodies, sent to the real program."""

import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.bodies import PNG
from tests.servers import Server, serving


@pytest.mark.parametrize("body", [b"ZZ\r\n", b"5\r\nhelloXX", b"5\r\nhel"])
def test_malformed_chunked_body_is_answered_with_400(server: Server, body: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(
            b"POST /invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + body
        )
        client.shutdown(socket.SHUT_WR)

        response = client.recv(4096).decode()

    assert response.startswith("HTTP/1.1 400 ")
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize(
    ("sizes", "chunk"),
    [(b"Content-Length: 1000", b"x"), (b"Transfer-Encoding: chunked", b"1\r\nx\r\n")],
)
def test_slow_body_is_answered_with_408(base_dir: Path, sizes: bytes, chunk: bytes) -> None:
    with (
        serving(base_dir, SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS="1") as server,
        socket.create_connection(("127.0.0.1", server.port)) as client,
    ):
        client.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\n" + sizes + b"\r\n\r\n")
        client.settimeout(0.2)
        response, start = "", time.monotonic()
        while not response and time.monotonic() < start + 9:
            client.sendall(chunk)
            with suppress(TimeoutError):
                response = client.recv(4096).decode()

    assert response.startswith("HTTP/1.1 408 ")
    assert "\r\nConnection: close\r\n" in response


@pytest.mark.slow
def test_client_can_finish_sending_a_too_large_body_and_read_413(
    base_dir: Path,
) -> None:
    with (
        serving(base_dir, SAGEMAKER_MAX_PAYLOAD_IN_MB="1") as server,
        socket.create_connection(("127.0.0.1", server.port)) as client,
    ):
        client.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n")
        client.settimeout(0.1)
        response = b""
        while not response:
            client.sendall(bytes(10_000))
            with suppress(TimeoutError):
                response = client.recv(4096)
        for _ in range(5):
            client.sendall(bytes(10_000))
            time.sleep(0.1)
        assert server.invoke(PNG).status == 200

    assert response.startswith(b"HTTP/1.1 413 ")
    assert b"\r\nConnection: close\r\n" in response
