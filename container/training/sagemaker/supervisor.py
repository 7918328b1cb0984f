"""The supervisor of a host's training processes, one per GPU.

SageMaker starts one container per host. Its first process supervises the others, which run the
same program and read their ranks from torchrun's variables.
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
from container.classifier.environment import PROCESSES_VARIABLE
from container.classifier.errors import UserError
from container.training.sagemaker.environment import TrainingEnvironment
from container.training.sagemaker.stop import SIGNALS, Stop, StopRequest

RANK, COUNT, PORT = "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT"
THREADS_VARIABLE = "OMP_NUM_THREADS"

# The port where the processes of several hosts connect.
DEFAULT_PORT = 29400

# Time to finish, for example the artifact, after another process has failed.
GRACE_SECONDS = 60

_POLL_SECONDS = 0.1
_PR_SET_PDEATHSIG = 1


class ConnectionLostError(UserError):
    """The connection to another process is lost, whose own error is the cause."""


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
        """Return the environment variables that `given` reads."""
        values = (self.index, self.count, self.port)
        return {name: str(value) for name, value in zip((RANK, COUNT, PORT), values, strict=True)}


def count_processes() -> int:
    """Return the number of training processes of this host.

    Raises:
        UserError: PROCESSES_VARIABLE is not a number, or is larger than the number of GPUs.
    """
    wanted, gpus = os.environ.get(PROCESSES_VARIABLE), _count_gpus()
    if wanted is None:
        return max(1, gpus)
    if not (wanted.isdecimal() and int(wanted)):
        raise UserError(f"{PROCESSES_VARIABLE} must be a whole number from 1 on, got {wanted!r}")
    if 0 < gpus < int(wanted):
        raise UserError(
            f"{PROCESSES_VARIABLE} is {wanted}, but the host has {gpus} GPUs, one per process"
        )
    return int(wanted)


def supervise(environment: TrainingEnvironment, stop: StopRequest, count: int) -> int:
    """Train in `count` child processes; return this program's exit code.

    If one fails, the others are terminated. The failed process writes the failure file, or else
    the supervisor.
    """
    is_alone = len(environment.hosts().names) == 1
    port = int(os.environ.get(PORT, _free_port() if is_alone else DEFAULT_PORT))
    with _started([Rank(rank, count, port) for rank in range(count)], stop) as children:
        _wait(children, stop)
        # Before the others are terminated, because they can exit with any code.
        failed = [rank for rank, child in enumerate(children) if child.returncode]
        if not failed:
            return 0
        _terminate(children)
    rank = min(failed, key=lambda rank: children[rank].returncode)
    code = children[rank].returncode
    if code < 0:
        environment.write_failure(f"{_name(rank, count)} was killed by {_signal(-code)}")
    else:
        reason = f"{_name(rank, count)} exited with code {code}: see the log"
        environment.write_failure(reason, keep_existing=True)
    return 1


def end_with_supervisor() -> None:
    """Have the kernel kill this process when the supervisor dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def limit_threads_to_quota(cgroups: Path = machine.CGROUPS) -> None:
    """Limit the compute threads of this process and of those it starts, if it has a CPU quota.

    By the variable that torch and NumPy read when they are loaded; a value that the user has set is
    kept. Without a quota the libraries choose, because the number of threads changes the rounding
    of results.
    """
    quota = machine.cpu_quota(cgroups)
    if quota is None or THREADS_VARIABLE in os.environ:
        return
    count = max(1, int(quota))
    os.environ[THREADS_VARIABLE] = str(count)
    # A forked process has torch loaded already.
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(count)


def _count_gpus() -> int:
    # Without GPUs the slow import of torch is not needed.
    if not machine.gpu_count():
        return 0
    import torch  # noqa: PLC0415

    # It calls the driver's management library and does not initialize CUDA.
    return torch.cuda.device_count()


def _free_port() -> int:
    """Return a free port, because tuning trials may share the machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextmanager
def _started(ranks: Sequence[Rank], stop: StopRequest) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start a process for each rank; kill all of them at the end of the block."""
    children: list[subprocess.Popen[bytes]] = []
    try:
        # Children inherit the mask: a stop signal is pending until they listen.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        for rank in ranks:
            # Without it, PyTorch logs pages about a lost connection before our message.
            defaults = {"TORCH_CPP_LOG_LEVEL": "ERROR"}
            if rank.count > 1:
                defaults[THREADS_VARIABLE] = str(max(1, int(machine.usable_cpus()) // rank.count))
            variables = {**defaults, **os.environ, **rank.variables()}
            command = [sys.executable, "-m", "container.training", "train"]
            children.append(subprocess.Popen(command, env=variables))
        stop.listen()
        yield children
    finally:
        for child in children:
            child.kill()
            child.wait()


def _wait(children: Sequence[subprocess.Popen[bytes]], stop: Stop) -> None:
    """Wait until all have exited or one has failed; forward a stop request."""
    is_forwarded = False
    while None in (codes := [child.poll() for child in children]):
        if any(codes):
            return
        if stop.requested and not is_forwarded:
            for child in children:
                child.terminate()
            is_forwarded = True
        time.sleep(_POLL_SECONDS)


def _terminate(children: Sequence[subprocess.Popen[bytes]]) -> None:
    for child in children:
        child.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    while None in [child.poll() for child in children] and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


def _name(rank: int, count: int) -> str:
    if count == 1:
        return "the training process"
    if _count_gpus():
        return f"the training process of GPU {rank}"
    return f"training process {rank + 1} of {count}"


def _signal(number: int) -> str:
    name = signal.Signals(number).name
    return f"{name} (out of memory?)" if number == signal.SIGKILL else name
