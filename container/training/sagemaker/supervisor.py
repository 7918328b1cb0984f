"""The processes of one host, one a GPU: started, stopped and watched by the program itself.

SageMaker starts one container a host. Its first process then supervises others of the same
program, which read their ranks from torchrun's variables.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from container.classifier import machine
from container.classifier.errors import UserError
from container.classifier.vocabulary import PROCESSES_VARIABLE
from container.training.sagemaker import threads
from container.training.sagemaker.environment import TrainingEnvironment
from container.training.sagemaker.stop import SIGNALS, Stop, StopRequest

RANK, COUNT, PORT = "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT"

# Where the processes of several hosts meet.
DEFAULT_PORT = 29400

# For what one process has to finish, the artifact say, when another has failed.
GRACE_SECONDS = 60

_LOOK_SECONDS = 0.1
_PR_SET_PDEATHSIG = 1


class ConnectionLostError(UserError):
    """Another process of the job is gone, and knows better why."""


@dataclass(frozen=True, slots=True)
class Rank:
    """The index of a process among those of its host, and the port where all processes connect."""

    index: int
    count: int
    port: int

    @classmethod
    def given(cls) -> Self | None:
        """Return the rank that a supervisor has assigned to this process, if any."""
        if RANK not in os.environ:
            return None
        return cls(*(int(os.environ[name]) for name in (RANK, COUNT, PORT)))

    def variables(self) -> Mapping[str, str]:
        """Return what `given` reads."""
        values = (self.index, self.count, self.port)
        return {name: str(value) for name, value in zip((RANK, COUNT, PORT), values, strict=True)}


def count_processes() -> int:
    """Return how many processes this host shall have.

    Raises:
        UserError: SAGEMAKER_CLASSIFIER_PROCESSES says something impossible.
    """
    wanted, gpus = os.environ.get(PROCESSES_VARIABLE), _count_gpus()
    if wanted is None:
        return max(1, gpus)
    if not (wanted.isdecimal() and int(wanted)):
        message = f"{PROCESSES_VARIABLE} must be a whole number from 1 on, got {wanted!r}"
        raise UserError(message)
    if 0 < gpus < int(wanted):
        message = f"{PROCESSES_VARIABLE} is {wanted}, but the host has {gpus} GPUs, one per process"
        raise UserError(message)
    return int(wanted)


def supervise(environment: TrainingEnvironment, stop: StopRequest, count: int) -> int:
    """Train in `count` processes of their own; return this program's exit code.

    When one fails, the others are ended. The failure file is written by the process that knows
    the reason, and here where it could not.
    """
    is_alone = len(environment.hosts().names) == 1
    port = int(os.environ.get(PORT, _free_port() if is_alone else DEFAULT_PORT))
    with _started([Rank(rank, count, port) for rank in range(count)], stop) as children:
        _wait(children, stop)
        # Before the others are told to end, which they may do in any way.
        failed = [rank for rank, child in enumerate(children) if child.returncode]
        if not failed:
            return 0
        _end(children)
    rank = min(failed, key=lambda rank: children[rank].returncode)
    code = children[rank].returncode
    if code < 0:
        environment.write_failure(f"{_name(rank, count)} was ended by {_signal(-code)}")
    else:
        reason = f"{_name(rank, count)} ended with exit code {code}: the log says why"
        environment.write_failure(reason, unless_there_is_one=True)
    return 1


def end_with_supervisor() -> None:
    """Make the death of the supervisor, however it comes, this process's own."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _count_gpus() -> int:
    # In a container these are its own. Without any, torch need not be imported to know.
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return 0
    import torch  # noqa: PLC0415

    # Asks the driver's management library, and leaves CUDA to the processes.
    return torch.cuda.device_count()


def _free_port() -> int:
    """Return a port for the processes of one host: tuning trials may share the machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextmanager
def _started(ranks: Sequence[Rank], stop: StopRequest) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start a process for each rank; end all of them with the block."""
    children: list[subprocess.Popen[bytes]] = []
    try:
        # Children inherit that: a stop waits until they listen.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        for rank in ranks:
            # Else a lost connection is told in pages before it is told in a sentence.
            defaults = {"TORCH_CPP_LOG_LEVEL": "ERROR", **_threads(rank.count)}
            variables = {**defaults, **os.environ, **rank.variables()}
            command = [sys.executable, "-m", "container.training", "train"]
            children.append(subprocess.Popen(command, env=variables))
        stop.listen()
        yield children
    finally:
        for child in children:
            child.kill()
            child.wait()


def _threads(count: int) -> Mapping[str, str]:
    """Return each process's share of the CPUs, if several processes share them."""
    if count == 1:
        return {}
    return {threads.VARIABLE: str(max(1, int(machine.usable_cpus()) // count))}


def _wait(children: Sequence[subprocess.Popen[bytes]], stop: Stop) -> None:
    """Wait until all have ended or one has failed; pass a stop on meanwhile."""
    is_passed_on = False
    while None in (codes := [child.poll() for child in children]):
        if any(codes):
            return
        if stop.requested and not is_passed_on:
            for child in children:
                child.terminate()
            is_passed_on = True
        time.sleep(_LOOK_SECONDS)


def _end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    for child in children:
        child.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    while None in [child.poll() for child in children] and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)


def _name(rank: int, count: int) -> str:
    if count == 1:
        return "the training process"
    if _count_gpus():
        return f"the training process of GPU {rank}"
    return f"training process {rank + 1} of {count}"


def _signal(number: int) -> str:
    name = signal.Signals(number).name
    return f"{name} (out of memory?)" if number == signal.SIGKILL else name
