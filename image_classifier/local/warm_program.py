"""A process that imports the training program once and forks it for each trial of a tuning job.

The import of torch takes seconds of CPU time. Requests for trials arrive on a socket, the standard
input. When the other end closes, because the tuning ends or is killed, the trials are killed.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress

MAX_BYTES = 100_000

# On macOS, system libraries start threads that do not survive a fork.
CAN_FORK = sys.platform == "linux"

COMMAND = (sys.executable, "-m", "container.training", "train")


def main() -> int:
    """Start trials until the socket is closed."""
    if CAN_FORK:
        _load()
    trials: set[int] = set()
    with socket.socket(fileno=os.dup(0)) as requests:
        while True:
            message, descriptors, _, _ = socket.recv_fds(requests, MAX_BYTES, 1)
            _reap(trials)
            if not message:
                break
            variables: dict[str, str] = json.loads(message)
            pid = _fork() if CAN_FORK else _spawn(variables, descriptors[0])
            if pid == 0:
                requests.close()
                return _train(variables, descriptors[0])
            os.close(descriptors[0])
            trials.add(pid)
            requests.sendall(f"{pid}\n".encode())
    for pid in trials:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    return 0


def _load() -> None:
    from container.training import job  # noqa: F401, PLC0415 - imports torch

    with suppress(ImportError):
        # Optional for a job.
        from container.debugger.recording import tensor_recorder  # noqa: F401, PLC0415


def _fork() -> int:
    """Fork; the trial leads a process group, so that it can be killed with its children."""
    pid = os.fork()
    # In both processes, so that the group exists before either continues.
    with suppress(OSError):
        os.setpgid(pid, pid)
    return pid


def _train(variables: dict[str, str], output: int) -> int:
    from container.training.__main__ import main as train  # noqa: PLC0415

    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, number in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(descriptor, number)
    os.close(nothing)
    os.close(output)
    # New objects: the existing ones are buffered for the files they were opened for.
    sys.stdout, sys.stderr = (
        os.fdopen(number, "w", 1, "utf-8", closefd=False) for number in (1, 2)
    )
    os.environ.update(variables)
    return train(["train"])


def _spawn(variables: dict[str, str], output: int) -> int:
    return subprocess.Popen(
        COMMAND,
        env=os.environ | variables,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        process_group=0,
    ).pid


def _reap(trials: set[int]) -> None:
    """Collect the exit status of trials that have ended."""
    while trials:
        pid, _ = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        trials.discard(pid)


if __name__ == "__main__":
    sys.exit(main())
