"""The inputs of a program in the sandbox, and the control of a running program."""

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from container.classifier.errors import UserError
from image_classifier.platform.sandbox.http_call import Address
from image_classifier.platform.sandbox.sockets import Socket

POLL_SECONDS = 0.05

# As a line of a log, and all that a person reads of it.
_LINE_CHARACTERS = 300

# Servers print more lines after the exception of a worker.
_END_LINES = 30
_EXCEPTION = re.compile(r"[\w.]*(?:Error|Exception)\b")
_GUNICORN_END = re.compile(
    r"\[.*\] \[\w+\] (?:Worker exiting|Worker .* exited|Shutting down|Reason: Worker failed)"
)


class StartError(Exception):
    """The program cannot be executed."""


class SandboxError(UserError):
    """There is no sandbox on this machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a container may use of this machine."""

    memory: int | None = None
    """Bytes."""

    cpus: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """One start of a program under SageMaker's contract."""

    base_dir: Path
    """Folder on this machine whose folders are those of /opt/ml."""

    folders: Mapping[str, bool]
    """Folders of /opt/ml that the program sees, and whether it may write them."""

    mounts: Mapping[Path, bool] = field(default_factory=dict)
    """Folders that a container sees under their paths of this machine, and whether it may write
    them."""

    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables, in addition to those of the container image."""

    port: int | None = None
    """TCP port that the program must listen on; None: it is a job."""

    published: Address | None = None
    """IP address and TCP port of this machine that lead to `port`. The container can outlive this
    process."""

    has_network: bool = False

    host: str | None = None
    """Its name in `network`, for the other hosts of a job."""

    network: str | None = None
    """The engine's network of the container; None: one without other containers, and without a
    route to other machines unless `has_network`."""

    has_gpus: bool = False
    """Whether a container sees the GPUs of this machine, if the engine has NVIDIA's runtime."""

    memory: int | None = None
    """Bytes that the program may use."""

    cpus: float | None = None
    """CPUs that a container may use."""

    output: tuple[int, int] | None = None
    """File descriptors for its standard output and standard error; None: `Running.log` has both."""


class Running(ABC):
    """A program that has been started."""

    address: Address
    """Host and port of the server."""

    memory_limit: int | None = None
    """Bytes that it may use."""

    @abstractmethod
    def exit_code(self) -> int | None:
        """Return the exit code; None: it runs. As in Docker, 137 means SIGKILL."""

    @abstractmethod
    def log(self) -> str:
        """Return its standard output and standard error."""

    @abstractmethod
    def terminate(self) -> None:
        """Send SIGTERM to its first process."""

    @abstractmethod
    def kill(self) -> None:
        """Send SIGKILL to all of its processes."""

    @abstractmethod
    def close(self) -> None:
        """Kill all of its processes, and remove what they left."""

    @abstractmethod
    def ran_out_of_memory(self) -> bool:
        """Return whether it was killed because it used more memory than allowed."""

    @abstractmethod
    def memory(self) -> int | None:
        """Return the bytes that its processes use; None: unknown."""

    @abstractmethod
    def sockets(self) -> list[Socket] | None:
        """Return its TCP sockets; None: unknown."""

    def ignores_sigterm(self) -> bool:
        """Return whether SIGTERM has no effect on the first process if it is process 1."""
        return False

    def programs(self) -> set[str]:
        """Return the names of its programs, as far as this system shows them."""
        return set()

    def cpu_waits(self) -> Mapping[str, float]:
        """Return for how many seconds each thread was ready to run, and had no processor."""
        return {}

    def waits_for_back_end(self) -> bool:
        """Return whether it has passed a request on to its back end, which still starts."""
        return False

    def left_processes(self) -> int:
        """Return the number of processes that run although the first one has ended."""
        return 0

    def changed_files(self) -> list[str]:
        """Return the files outside of /opt/ml that it created or changed."""
        return []

    def why_killed(self) -> str | None:
        """Return the reason if it was killed because it used more memory than allowed."""
        if not self.ran_out_of_memory():
            return None
        if self.memory_limit is None:
            return "out of memory"
        limit = self.memory_limit / 2**20
        return f"out of memory, with a limit of {limit:.0f} MiB: give it more with --memory"

    def wait(self, seconds: float) -> int | None:
        """Return the exit code; None: it still runs after these seconds."""
        deadline = time.monotonic() + seconds
        while (code := self.exit_code()) is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        return code

    def last_line(self) -> str:
        """Return the last exception in the end of its log, or else the last line.

        Skips what gunicorn logs after a worker has failed.
        """
        lines = [line.strip() for line in self.log().splitlines() if line.strip()]
        errors = [line for line in lines[-_END_LINES:] if _EXCEPTION.match(line)]
        found = errors or [line for line in lines if not _GUNICORN_END.match(line)] or lines
        return found[-1][:_LINE_CHARACTERS] if found else "(the log is empty)"


class Target(ABC):
    """A program that can be started several times."""

    is_container = False

    @abstractmethod
    def start(self, launch: Launch) -> Running:
        """Start it.

        Raises:
            StartError: the program cannot be executed.
            SandboxError: there is no sandbox on this machine.
        """
