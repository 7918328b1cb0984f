"""The real serving program as a process, for tests."""

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

CONTAINER = Path(__file__).resolve().parent.parent / "container"

# A hang ends here; PyTorch alone takes most of a minute on processors that are busy.
START_SECONDS = 120

# Less than a client may stall, who would hold up whoever waits behind it; far more than a busy
# machine takes for an answer.
SOON_SECONDS = 8


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


def request(
    port: int,
    method: str,
    path: str,
    body: bytes | Iterator[bytes] | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    timeout: float = 30,
) -> Answer:
    """Send one request on a connection of its own; a body that is an iterator goes chunked."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(
            method,
            path,
            body,
            dict(headers or {}),
            encode_chunked=isinstance(body, Iterator),
        )
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


def receive_all(client: socket.socket) -> bytes:
    """Return what comes until the server closes the connection."""
    data = b""
    while piece := client.recv(2**16):
        data += piece
    return data


@dataclass(frozen=True, kw_only=True)
class Server:
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def get(self, path: str) -> Answer:
        return request(self.port, "GET", path)

    def ping_soon(self) -> Answer:
        """Ask /ping while others stall; fail if it waits for them."""
        return request(self.port, "GET", "/ping", timeout=SOON_SECONDS)

    def invoke(
        self,
        body: bytes | Iterator[bytes],
        content_type: str = "image/png",
        accept: str | None = None,
        **headers: str,
    ) -> Answer:
        """POST /invocations; keywords become headers, `_` for `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named["Content-Type"] = content_type
        if accept is not None:
            named["Accept"] = accept
        return request(self.port, "POST", "/invocations", body, named)

    def wait_for_ping(self, status: int) -> Answer:
        """Ask until /ping answers with a status."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                answer = self.get("/ping")
            except OSError:
                pass
            else:
                if answer.status == status:
                    return answer
            time.sleep(0.02)
        message = f"/ping did not become {status}:\n{self.log.read_text()}"
        raise AssertionError(message)

    def workers(self) -> list[int]:
        """Return the process ids of gunicorn's workers."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
        return [int(child) for child in children]

    def worker(self) -> int:
        """Return the process id of gunicorn's one worker."""
        (worker,) = self.workers()
        return worker


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def starting(
    base_dir: Path,
    *arguments: str,
    under: Sequence[str] = (),
    **variables: str,
) -> Iterator[Server]:
    """Start the program as the image does; it is ended when the block is left.

    `under` is a command that sets something up and becomes the program.
    """
    port = free_port()
    environment = {
        **os.environ,
        "SAGEMAKER_BASE_DIR": str(base_dir),
        "SAGEMAKER_BIND_TO_PORT": str(port),
        **variables,
    }
    base_dir.mkdir(parents=True, exist_ok=True)
    log = base_dir / f"log-{port}.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*under, sys.executable, "-m", "container.serving", *(arguments or ("serve",))],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield Server(process=process, port=port, log=log)
        finally:
            process.kill()
            process.wait()


@contextmanager
def serving(
    base_dir: Path, *arguments: str, under: Sequence[str] = (), **variables: str
) -> Iterator[Server]:
    """Start the program and wait until it is ready."""
    with starting(base_dir, *arguments, under=under, **variables) as server:
        server.wait_for_ping(200)
        yield server
