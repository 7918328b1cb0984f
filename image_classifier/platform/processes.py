"""The server on this machine, started and stopped as SageMaker does it."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from container.classifier.environment import (
    BASE_DIR_VARIABLE,
    MULTI_MODEL_VARIABLE,
    PAGE_VARIABLE,
    PORT_VARIABLE,
    is_on,
)
from container.classifier.errors import UserError
from container.classifier.locks import is_at, try_lock
from image_classifier.platform.program import ROOT, Program
from image_classifier.platform.readiness import wait_until_ready
from image_classifier.platform.sandbox.ports import why_taken

# The tree of `make up`, with the drawn sample images.
TEST_DIR = ROOT / "local_test" / "test_dir"

# SageMaker's timeouts: from SIGTERM to SIGKILL, and of Local Mode for /ping.
SERVING_GRACE_SECONDS = 30
STARTUP_SECONDS = 120

PID_FILE, LOG_FILE = "serving.pid", "serving.log"

# 0.0.0.0 for all addresses of this machine.
BIND_ADDRESS_VARIABLE = "BIND_ADDRESS"
_ALL_ADDRESSES = "0.0.0.0"  # noqa: S104 - compared, not listened on

VARIABLES = {
    # For training too.
    "PYTHONUNBUFFERED": "1",
    # Waiting threads must not spin on a machine with other processes: with three busy ones, a
    # job takes 2.3 times as long (2 cores, median of 5 pairs).
    "OMP_WAIT_POLICY": "passive",
}

_ALREADY_STARTING = "a server is starting in this folder already: wait until it responds"


def as_process(
    base_dir: Path,
    port: int,
    root: Path = ROOT,
    *,
    variables: Mapping[str, str] | None = None,
    address: str | None = None,
) -> Program:
    """Return the server as a plain process.

    Args:
        base_dir: the folder that stands for /opt/ml.
        port: TCP port of this machine.
        root: folder of the package `container`.
        variables: environment variables of the server.
        address: IP address to listen on; None: that of servers for clients.

    Raises:
        UserError: packages are missing.
    """
    require("flask")
    # The server of a container listens on all addresses.
    bind = f"--bind {address or bind_address()}:{port}"
    variables = variables or {}
    options = (os.environ | variables).get("GUNICORN_CMD_ARGS", "")
    return Program(
        command=[sys.executable, "-m", "container.serving", "serve"],
        variables={
            **VARIABLES,
            PAGE_VARIABLE: "true",
            **variables,
            BASE_DIR_VARIABLE: str(base_dir.resolve()),
            PORT_VARIABLE: str(port),
            "GUNICORN_CMD_ARGS": f"{options} {bind}",
        },
        cwd=root,
    )


def serve(base_dir: Path, port: int, program: Program) -> subprocess.Popen[bytes]:
    """Start the server in the background; return its process when it is healthy.

    A running server of this folder is stopped first, because it serves an older model.

    Raises:
        UserError: the model is missing, the port is in use, another server is starting in this
            folder, or the server does not become healthy (the message ends with its log).
    """
    is_multi_model = is_on((os.environ | program.variables).get(MULTI_MODEL_VARIABLE, ""))
    if not is_multi_model and not any((base_dir / "model").glob("*")):
        raise UserError(
            f"no model in {base_dir / 'model'}: "
            "run `python -m image_classifier.platform train` first"
        )
    # Checked first, so that an error leaves the running server alone.
    if port_of_server(base_dir) != port:
        require_free_port(port)
    stop(base_dir)
    # The server and its children inherit the file lock and hold it until they end, so that the
    # process id in the file can never belong to another process.
    with starting(base_dir) as pid_file:
        with (base_dir / LOG_FILE).open("w") as log:
            process = program.start(
                stdout=log, stderr=subprocess.STDOUT, pass_fds=[pid_file.fileno()]
            )
        pid_file.write(f"{process.pid} {port}")
    log_file = base_dir / LOG_FILE

    def why_ended() -> str | None:
        code = process.poll()
        return None if code is None else f"exit code {code}; {end_of(log_file)}"

    try:
        wait_until_ready(
            client_address(port),
            STARTUP_SECONDS,
            why_ended=why_ended,
            end_of_log=lambda: end_of(log_file),
        )
    except BaseException:
        stop(base_dir)
        process.wait()
        raise
    return process


@contextmanager
def starting(base_dir: Path) -> Iterator[IO[str]]:
    """Hold the lock of a folder while a server starts in it; yield the locked file, which is empty.

    Raises:
        UserError: another server is starting there.
    """
    path = base_dir / PID_FILE
    while True:
        with path.open("a+") as pid_file:
            is_free = try_lock(pid_file)
            if not is_at(pid_file, path):
                # `stop` removed it before it was locked.
                continue
            if not is_free:
                raise UserError(_ALREADY_STARTING)
            pid_file.truncate(0)
            yield pid_file
            return


def stop(base_dir: Path) -> bool:
    """Stop the server with SIGTERM, later SIGKILL; return whether one was running."""
    path = base_dir / PID_FILE
    try:
        opened = path.open()
    except FileNotFoundError:
        return False
    with opened as pid_file:
        was_running = not try_lock(pid_file)
        if was_running:
            _end(_read(pid_file)[0], pid_file)
        # Another `stop` may have removed it, and another server have started since.
        if is_at(pid_file, path):
            path.unlink()
    return was_running


def port_of_server(base_dir: Path) -> int | None:
    """Return the port of the server of this folder; None if none is running.

    Raises:
        UserError: a server is starting.
    """
    if not (base_dir / PID_FILE).exists():
        return None
    with (base_dir / PID_FILE).open() as pid_file:
        return None if try_lock(pid_file) else _read(pid_file)[1]


def bind_address() -> str:
    """Return the IP address that servers listen on; BIND_ADDRESS overrides it."""
    return os.environ.get(BIND_ADDRESS_VARIABLE) or "127.0.0.1"


def client_address(port: int) -> tuple[str, int]:
    """Return the address at which clients on this machine find a server."""
    address = bind_address()
    return ("127.0.0.1" if address == _ALL_ADDRESSES else address, port)


def require(package: str) -> None:
    """Check that a package is installed, which training or serving on this machine needs.

    Raises:
        UserError: it is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise UserError(
            f"{sys.executable} has no {package}: in the checkout run `make setup` and use "
            ".venv/bin, or pip install '.[local]', or `docker compose build` to use containers"
        )


def _end(pid: int, pid_file: IO[str]) -> None:
    """Stop the processes that hold the lock, of which `pid` is the first."""
    deadline = time.monotonic() + SERVING_GRACE_SECONDS
    holders = _holders(pid_file) or {pid}
    # The others end with the first one. If it was killed, they end with the leader of a session.
    leaders = {pid} & holders or set(filter(_is_leader, holders)) or holders
    _signal(leaders, signal.SIGTERM)
    while not try_lock(pid_file):
        if time.monotonic() > deadline:
            _signal(_holders(pid_file) or {pid}, signal.SIGKILL)
        time.sleep(0.1)


def _is_leader(pid: int) -> bool:
    with suppress(ProcessLookupError):
        return os.getsid(pid) == pid
    return False


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _holders(pid_file: IO[str]) -> set[int]:
    """Return the processes that hold the lock of a file; none without /proc, as on macOS."""
    inode, found = os.fstat(pid_file.fileno()).st_ino, set()
    for information in Path("/proc").glob("[0-9]*/fdinfo/*"):
        with suppress(OSError):
            locks = [line for line in information.read_text().splitlines() if "FLOCK" in line]
            # Such as `lock: 1: FLOCK ADVISORY WRITE 4637 fe:00:2147580 0 EOF`.
            if any(f":{inode} " in line for line in locks):
                found.add(int(information.parts[2]))
    return found


def _read(pid_file: IO[str]) -> tuple[int, int]:
    """Return the server's process id and port."""
    try:
        pid, port = map(int, pid_file.read().split()[:2])
    except ValueError:
        # Locked, but not written yet.
        raise UserError(_ALREADY_STARTING) from None
    return pid, port


def require_free_port(port: int) -> None:
    """Check that a server for clients can listen on a port.

    Raises:
        UserError: it cannot.
    """
    if (reason := why_taken(port, bind_address())) is not None:
        raise UserError(
            f"cannot listen on port {port} ({reason}): "
            "stop the program that uses it, or choose another port with --port, "
            "for `make` and local_test/ with the variable PORT"
        )


def end_of(log: Path) -> str:
    """Return the last lines of a log, after its path."""
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join([f"{log} ends:", *lines[-20:]])
