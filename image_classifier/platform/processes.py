"""Training and serving as plain processes, started and stopped like SageMaker's containers."""

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
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from types import FrameType
from typing import IO

from container.classifier.environment import (
    BASE_DIR_VARIABLE,
    JOB_NAME_VARIABLE,
    MULTI_MODEL_VARIABLE,
    PAGE_VARIABLE,
    PORT_VARIABLE,
    is_on,
)
from container.classifier.errors import UserError
from image_classifier.platform import opt_ml

ROOT = Path(__file__).resolve().parents[2]

# The tree of `make up`, with the drawn sample images.
TEST_DIR = ROOT / "local_test" / "test_dir"

# SageMaker's timeouts: from SIGTERM to SIGKILL, and of Local Mode for /ping.
TRAINING_GRACE_SECONDS = 120
SERVING_GRACE_SECONDS = 30
STARTUP_SECONDS = 120

PID_FILE, LOG_FILE, TRAINING_LOG = "serving.pid", "serving.log", "training.log"

_ALREADY_STARTING = "a server is starting in this folder already: wait until it responds"


def train(base_dir: Path, root: Path = ROOT, on_stop: Callable[[], None] = lambda: None) -> int:
    """Run a training job with its log on standard output and in a file; return its exit code.

    On SIGTERM and SIGINT the program gets SIGTERM, and SIGKILL after SageMaker's timeout;
    `on_stop` is called.

    Raises:
        UserError: the tree is not prepared, or packages are missing.
        BrokenPipeError: the reader of standard output has ended, and so has the training.
    """
    require("torch")
    if not (base_dir / opt_ml.HYPERPARAMETERS).is_file():
        raise UserError(
            f"nothing to train in {base_dir}: "
            "run `python -m image_classifier.platform prepare` first"
        )
    opt_ml.create(base_dir)
    job = {JOB_NAME_VARIABLE: time.strftime("local-%Y-%m-%d-%H-%M-%S")}
    job["TRAINING_JOB_ARN"] = f"arn:aws:sagemaker:local:0:training-job/{job[JOB_NAME_VARIABLE]}"
    # In a new session, Ctrl-C in a terminal reaches only this process, which sends SIGTERM.
    process = subprocess.Popen(
        [sys.executable, "-m", "container.training", "train"],
        cwd=root,
        env=_environment(base_dir) | job,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    # Its children too: the log ends when no process can write to it.
    killer = threading.Timer(TRAINING_GRACE_SECONDS, os.killpg, (process.pid, signal.SIGKILL))

    def stop_training() -> None:
        on_stop()
        process.terminate()
        if not killer.is_alive():
            killer.start()

    with handle_stop_signals(stop_training), (base_dir / TRAINING_LOG).open("wb") as log:
        is_read = _copy(process, log, stop_training)
        exit_code = process.wait()
    killer.cancel()
    if not is_read:
        raise BrokenPipeError
    # Like shells and Docker: 137 for SIGKILL.
    return exit_code if exit_code >= 0 else 128 - exit_code


def serve(base_dir: Path, port: int, root: Path = ROOT) -> subprocess.Popen[bytes]:
    """Start the server in the background; return its process when it is healthy.

    A running server of this folder is stopped first, because it serves an older model.

    Raises:
        UserError: the model or a package is missing, the port is in use, another server is
            starting in this folder, or the server does not become healthy (the message ends with
            its log).
    """
    require("flask")
    is_multi_model = is_on(os.environ.get(MULTI_MODEL_VARIABLE, ""))
    if not is_multi_model and not any((base_dir / "model").glob("*")):
        raise UserError(
            f"no model in {base_dir / 'model'}: "
            "run `python -m image_classifier.platform train` first"
        )
    # Checked first, so that an error leaves the running server alone.
    if port_of_server(base_dir) != port:
        _require_free_port(port)
    stop(base_dir)
    # The server inherits the file lock and holds it until it ends, so that the process id in the
    # file can never belong to another process.
    with (base_dir / PID_FILE).open("a+") as pid_file:
        if not _is_unlocked(pid_file):
            raise UserError(_ALREADY_STARTING)
        pid_file.truncate(0)
        process = _start(base_dir, port, root, pid_file)
        pid_file.write(f"{process.pid} {port}")
    try:
        _wait_until_healthy(process, port, base_dir / LOG_FILE)
    except BaseException:
        stop(base_dir)
        process.wait()
        raise
    return process


def stop(base_dir: Path) -> bool:
    """Stop the server with SIGTERM, later SIGKILL; return whether one was running."""
    if not (base_dir / PID_FILE).exists():
        return False
    with (base_dir / PID_FILE).open() as pid_file:
        was_running = not _is_unlocked(pid_file)
        if was_running:
            _end(_read(pid_file)[0], pid_file)
        # Still locked by this process, so that no other server can have started.
        (base_dir / PID_FILE).unlink(missing_ok=True)
    return was_running


def port_of_server(base_dir: Path) -> int | None:
    """Return the port of the server of this folder; None if none is running.

    Raises:
        UserError: a server is starting.
    """
    if not (base_dir / PID_FILE).exists():
        return None
    with (base_dir / PID_FILE).open() as pid_file:
        return None if _is_unlocked(pid_file) else _read(pid_file)[1]


@contextmanager
def handle_stop_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on SIGTERM and SIGINT during a `with` block."""

    def handle(_signal: int, _frame: FrameType | None) -> None:
        stop()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def require(package: str) -> None:
    """Check that a package is installed.

    Raises:
        UserError: it is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise UserError(missing(package))


def missing(package: str) -> str:
    """Return the message about a package that training and serving on this machine need."""
    return (
        f"{sys.executable} has no {package}: pip install 'image-classifier[local]', "
        "or in a checkout `make setup` and then use .venv/bin"
    )


def _copy(process: subprocess.Popen[bytes], log: IO[bytes], stop: Callable[[], None]) -> bool:
    """Copy the output of a training to its log and to standard output, until it ends.

    If the reader of standard output ends, the training is stopped, which leaves a checkpoint.

    Returns:
        Whether all of the output was read.
    """
    is_read = True
    if process.stdout is None:
        raise AssertionError
    with process.stdout as lines:
        for line in lines:
            log.write(line)
            log.flush()
            try:
                if is_read:
                    print(line.decode(errors="backslashreplace"), end="", flush=True)
            except BrokenPipeError:
                is_read = False
                stop()
    return is_read


def _start(base_dir: Path, port: int, root: Path, pid_file: IO[str]) -> subprocess.Popen[bytes]:
    variables = {PORT_VARIABLE: str(port), PAGE_VARIABLE: "true"}
    with (base_dir / LOG_FILE).open("w") as log:
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
        # Locked, but not written yet.
        raise UserError(_ALREADY_STARTING) from None
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
            raise UserError(f"the server ended with exit code {exit_code}; {_end_of(log)}")
        if time.monotonic() > deadline:
            raise UserError(f"the server was not healthy after {STARTUP_SECONDS} s; {_end_of(log)}")
        time.sleep(0.2)


def _is_healthy(port: int) -> bool:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=2)) as connection:
        try:
            connection.request("GET", "/ping")
            return connection.getresponse().status == HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False


def _require_free_port(port: int) -> None:
    with socket.socket() as probe:
        # Like the server: a port with connections in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise UserError(
                f"cannot listen on port {port} ({error.strerror}): "
                "stop the program that uses it, or choose another port"
            ) from error


def _environment(base_dir: Path) -> dict[str, str]:
    return os.environ | {
        "PYTHONUNBUFFERED": "1",
        # Waiting threads must not spin on a machine with other processes: with three busy ones, a
        # job takes 2.3 times as long (2 cores, median of 5 pairs).
        "OMP_WAIT_POLICY": "passive",
        BASE_DIR_VARIABLE: str(base_dir.resolve()),
    }


def _end_of(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join([f"{log} ends:", *lines[-20:]])
