"""The training program, loaded once for all trials of a tuning on this machine.

It takes seconds of a processor to import torch and what goes with it. This process does so
once and forks for every trial that is requested on the socket that is its standard input. It
ends, and the trials with it, when the launcher does, however that ended.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress

MAX_BYTES = 100_000

# Elsewhere what the system's libraries have started may not survive a fork.
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
    from container.training import job  # noqa: F401, PLC0415 - torch, before the first trial needs it

    with suppress(ImportError):
        # A job does without where it is not installed.
        from container.debugger.recording import tensor_recorder  # noqa: F401, PLC0415


def _fork() -> int:
    """Fork; the trial leads a group of processes, as which it can be ended."""
    pid = os.fork()
    # In both processes, so that the group exists for the one that runs first.
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
    # Opened again: existing file objects keep the type of their first file.
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
    """Forget those that have ended."""
    while trials:
        pid, _ = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        trials.discard(pid)


if __name__ == "__main__":
    sys.exit(main())
