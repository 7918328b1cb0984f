"""The two programs as plain processes, started and stopped as SageMaker does with containers."""

import fcntl
import http.client
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from types import FrameType
from typing import IO

from container.classifier.errors import UserError
from container.classifier.vocabulary import (
    BASE_DIR_VARIABLE,
    JOB_NAME_VARIABLE,
    MULTI_MODEL_VARIABLE,
    PAGE_VARIABLE,
    PORT_VARIABLE,
)
from image_classifier.platform import opt_ml

ROOT = Path(__file__).resolve().parents[2]

# SageMaker's times: from SIGTERM to SIGKILL, and how long Local Mode waits for /ping.
TRAINING_GRACE_SECONDS = 120
SERVING_GRACE_SECONDS = 30
STARTUP_SECONDS = 120

_ANOTHER_STARTS = "another `local_test serve` is starting a server here: wait until it has"


def train(base_dir: Path, root: Path = ROOT) -> int:
    """Run one training job to its end, its log on our output; return its exit code.

    SIGTERM and SIGINT reach the program as SageMaker's stop does: SIGTERM, later SIGKILL.

    Raises:
        UserError: the tree is not prepared, or this Python lacks the packages.
    """
    require("torch")
    if not (base_dir / opt_ml.HYPERPARAMETERS).is_file():
        message = (
            f"nothing to train in {base_dir}: "
            "run `python -m image_classifier.platform prepare` first"
        )
        raise UserError(message)
    opt_ml.create(base_dir)
    job = {JOB_NAME_VARIABLE: time.strftime("local-%Y-%m-%d-%H-%M-%S")}
    job["TRAINING_JOB_ARN"] = f"arn:aws:sagemaker:local:0:training-job/{job[JOB_NAME_VARIABLE]}"
    # A separate session: a terminal's Ctrl-C reaches this process only, which sends SIGTERM.
    process = subprocess.Popen(
        [sys.executable, "-m", "container.training", "train"],
        cwd=root,
        env=_environment(base_dir) | job,
        start_new_session=True,
    )
    with _stopped_by_signals(process):
        exit_code = process.wait()
    # As a shell and an engine say it: 137 for a SIGKILL.
    return exit_code if exit_code >= 0 else 128 - exit_code


def serve(base_dir: Path, port: int, root: Path = ROOT) -> subprocess.Popen[bytes]:
    """Start the server in the background; return its process once it is healthy.

    A server that was started here before is stopped first: it holds an older model.

    Raises:
        UserError: there is no model, the port is taken, this Python lacks the packages, another
            one is being started here, or the server ended or did not get healthy (the message
            ends with its log).
    """
    require("flask")
    is_multi_model = os.environ.get(MULTI_MODEL_VARIABLE, "").lower() == "true"
    if not is_multi_model and not any((base_dir / "model").glob("*")):
        message = (
            f"no model in {base_dir / 'model'}: "
            "run `python -m image_classifier.platform train` first"
        )
        raise UserError(message)
    # Before a server is stopped that could have gone on.
    if port_of_server(base_dir) != port:
        _require_free_port(port)
    stop(base_dir)
    # The server inherits the locked file: it is locked for as long as the server lives, so that
    # the number in it can never be that of another process.
    with _pid_file(base_dir).open("a+") as pid_file:
        if not _is_unlocked(pid_file):
            raise UserError(_ANOTHER_STARTS)
        pid_file.truncate(0)
        process = _start(base_dir, port, root, pid_file)
        pid_file.write(f"{process.pid} {port}")
    try:
        _wait_until_healthy(process, port, _log_file(base_dir))
    except BaseException:
        stop(base_dir)
        process.wait()
        raise
    return process


def stop(base_dir: Path) -> bool:
    """Stop the server as SageMaker does, SIGTERM and later SIGKILL; False where none runs."""
    if not _pid_file(base_dir).exists():
        return False
    with _pid_file(base_dir).open() as pid_file:
        was_running = not _is_unlocked(pid_file)
        if was_running:
            _end(_read(pid_file)[0], pid_file)
        # Still locked: no other process can have started a server.
        _pid_file(base_dir).unlink(missing_ok=True)
    return was_running


def port_of_server(base_dir: Path) -> int | None:
    """Return the port of the server that was started here, or None where none runs.

    Raises:
        UserError: one is being started.
    """
    if not _pid_file(base_dir).exists():
        return None
    with _pid_file(base_dir).open() as pid_file:
        return None if _is_unlocked(pid_file) else _read(pid_file)[1]


def require(package: str) -> None:
    """Check that this Python has a package.

    Raises:
        UserError: it has not.
    """
    if importlib.util.find_spec(package) is None:
        message = f"{sys.executable} has no {package}: run `make setup`, then use .venv/bin/python"
        raise UserError(message)


def _start(base_dir: Path, port: int, root: Path, pid_file: IO[str]) -> subprocess.Popen[bytes]:
    variables = {PORT_VARIABLE: str(port), PAGE_VARIABLE: "true"}
    with _log_file(base_dir).open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "container.serving", "serve"],
            cwd=root,
            env=_environment(base_dir) | variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[pid_file.fileno()],
        )


@contextmanager
def _stopped_by_signals(process: subprocess.Popen[bytes]) -> Iterator[None]:
    killer = threading.Timer(TRAINING_GRACE_SECONDS, process.kill)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        process.terminate()
        if not killer.is_alive():
            killer.start()

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        killer.cancel()
        for number, handler in previous.items():
            signal.signal(number, handler)


def _end(pid: int, pid_file: IO[str]) -> None:
    deadline = time.monotonic() + SERVING_GRACE_SECONDS
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    while not _is_unlocked(pid_file):
        if time.monotonic() > deadline:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        time.sleep(0.1)


def _read(pid_file: IO[str]) -> tuple[int, int]:
    """Return the server's process id and port."""
    try:
        pid, port = map(int, pid_file.read().split())
    except ValueError:
        # Locked and not yet written.
        raise UserError(_ANOTHER_STARTS) from None
    return pid, port


def _is_unlocked(pid_file: IO[str]) -> bool:
    try:
        fcntl.flock(pid_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait_until_healthy(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + STARTUP_SECONDS
    while not _is_healthy(port):
        if (exit_code := process.poll()) is not None:
            message = f"the server ended with exit code {exit_code}; {_end_of(log)}"
            raise UserError(message)
        if time.monotonic() > deadline:
            message = f"the server was not healthy after {STARTUP_SECONDS} s; {_end_of(log)}"
            raise UserError(message)
        time.sleep(0.2)


def _is_healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _require_free_port(port: int) -> None:
    with socket.socket() as probe:
        # As the server does: a port whose last connections are still closing is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            message = (
                f"cannot listen on port {port} ({error.strerror}): "
                f"stop what listens there, or choose another port"
            )
            raise UserError(message) from error


def _environment(base_dir: Path) -> dict[str, str]:
    return os.environ | {
        "PYTHONUNBUFFERED": "1",
        # Others compute on this machine too: while threads that wait for one another spin, a job
        # beside three busy processes takes 2.3 times as long (2 cores, median of 5 pairs).
        "OMP_WAIT_POLICY": "passive",
        BASE_DIR_VARIABLE: str(base_dir.resolve()),
    }


def _end_of(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join([f"{log} ends:", *lines[-20:]])


def _pid_file(base_dir: Path) -> Path:
    return base_dir / "serving.pid"


def _log_file(base_dir: Path) -> Path:
    return base_dir / "serving.log"
