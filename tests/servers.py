"""Run the serving program as a process, for tests."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.processes import children, free_port

# Limit for a start. On busy cores, importing PyTorch takes most of a minute.
START_SECONDS = 120

# Less than the server's limit for stalled clients, so that waiting for one of them fails the test;
# far more than a busy machine takes for a response.
SOON_SECONDS = 8


class Response(NamedTuple):
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
) -> Response:
    """Send one request on a new connection; the body is chunked if it is an iterator."""
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
        return Response(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


def receive_all(client: socket.socket) -> bytes:
    """Return all bytes up to the end of the connection."""
    data = b""
    while chunk := client.recv(2**16):
        data += chunk
    return data


@dataclass(frozen=True, kw_only=True)
class Server:
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def get(self, path: str) -> Response:
        return request(self.port, "GET", path)

    def ping_soon(self) -> Response:
        """Request /ping while other clients stall; fail if it waits for them."""
        return request(self.port, "GET", "/ping", timeout=SOON_SECONDS)

    def invoke(
        self,
        body: bytes | Iterator[bytes],
        content_type: str = "image/png",
        accept: str | None = None,
        **headers: str,
    ) -> Response:
        """POST /invocations; keywords become headers with `-` instead of `_`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named["Content-Type"] = content_type
        if accept is not None:
            named["Accept"] = accept
        return request(self.port, "POST", "/invocations", body, named)

    def wait_for_ping(self, status: int) -> Response:
        """Request /ping until it returns a status."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                response = self.get("/ping")
            except OSError:
                pass
            else:
                if response.status == status:
                    return response
            time.sleep(0.02)
        message = f"/ping did not become {status}:\n{self.log.read_text()}"
        raise AssertionError(message)

    def workers(self) -> list[int]:
        """Return the process ids of gunicorn's workers."""
        return children(self.process.pid)

    def worker(self) -> int:
        """Return the process id of gunicorn's one worker."""
        (worker,) = self.workers()
        return worker


def stop_under_load(server: Server, body: bytes, *, clients: int, is_kept: bool) -> list[int | str]:
    """Send SIGTERM while clients send requests until they are refused.

    Returns:
        The status or the error of each request, without the refused connections.
    """
    outcomes: list[int | str] = []

    def invoke_until_refused() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        with closing(connection):
            while True:
                if not is_kept:
                    connection.close()
                try:
                    connection.request("POST", "/invocations", body, {"Content-Type": "image/jpeg"})
                    response = connection.getresponse()
                    response.read()
                    outcomes.append(response.status)
                except ConnectionRefusedError:
                    return
                except (OSError, http.client.HTTPException) as error:
                    outcomes.append(repr(error))
                    return

    threads = [threading.Thread(target=invoke_until_refused) for _ in range(clients)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(30)
    for thread in threads:
        thread.join()
    return outcomes


@contextmanager
def starting(
    base_dir: Path,
    *arguments: str,
    under: Sequence[str] = (),
    **variables: str,
) -> Iterator[Server]:
    """Start the program as the container image does; kill it at the end of the block.

    `under` is a command that runs the program, such as `prlimit`.
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
