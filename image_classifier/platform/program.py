"""A program that runs for minutes: a process of this Python, or a container."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """A command, and how it is stopped."""

    command: Sequence[str]

    variables: Mapping[str, str]
    """Environment variables, in addition to those of this process."""

    cwd: Path = ROOT

    container: str | None = None
    """Name of the container that the command runs; None: it is a plain process."""

    def start(self, **options: Any) -> subprocess.Popen[bytes]:  # noqa: ANN401 - those of Popen
        """Start the command in a new session, which Ctrl-C in a terminal does not reach."""
        return subprocess.Popen(
            self.command,
            cwd=self.cwd,
            env=os.environ | self.variables,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            **options,
        )

    def terminate(self, process: subprocess.Popen[bytes]) -> None:
        """Send SIGTERM, without waiting for the end."""
        if self.container is None:
            process.terminate()
        else:
            threading.Thread(target=self._terminate_container, args=[process], daemon=True).start()

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill it with all processes that it started, and remove its container."""
        if self.container is None:
            # macOS raises PermissionError for processes that have ended.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            return
        # Again while the client runs: it may not have created the container yet.
        while remove_container(self.container) and process.poll() is None:
            time.sleep(0.2)

    def _terminate_container(self, process: subprocess.Popen[bytes]) -> None:
        # Every second: a container that starts does not get it yet, and PID 1 ignores it until
        # the program has installed a handler.
        while process.poll() is None:
            _docker("kill", "--signal", "TERM", str(self.container))
            time.sleep(1)


def remove_container(name: str) -> bool:
    """Kill and remove a container if it exists; return whether the Docker client works."""
    return _docker("rm", "--force", name)


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


def _docker(*arguments: str) -> bool:
    """Run the Docker client silently, in a session that Ctrl-C does not reach."""
    with suppress(FileNotFoundError):
        subprocess.run(
            ["docker", *arguments],  # noqa: S607 - the Docker client is on the PATH
            stdin=subprocess.DEVNULL,
            capture_output=True,
            start_new_session=True,
            check=False,
        )
        return True
    return False
