"""The doctor sees whether a request waits for a server behind the first one."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from image_classifier.platform.sandbox.sockets import has_unaccepted

pytestmark = pytest.mark.skipif(not Path("/proc/net/unix").exists(), reason="Linux only")


@pytest.fixture(params=["tcp", "unix"])
def back_end(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    family = socket.AF_INET if request.param == "tcp" else socket.AF_UNIX
    with socket.socket(family) as listener:
        listener.bind(("127.0.0.1", 0) if request.param == "tcp" else str(tmp_path / "socket"))
        listener.listen()
        yield listener


def test_request_waits_until_the_back_end_accepts_it(back_end: socket.socket) -> None:
    def waits() -> bool:
        return has_unaccepted([os.getpid()], 1, own_network=False)

    assert not waits()
    with socket.socket(back_end.family) as client:
        client.connect(back_end.getsockname())
        client.send(b"GET /ping")
        assert waits()
        with back_end.accept()[0]:
            assert not waits()


def test_request_to_the_first_server_does_not_count() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.connect(server.getsockname())
        client.send(b"GET /ping")

        assert not has_unaccepted([os.getpid()], server.getsockname()[1], own_network=False)
