"""The training programs of all trials of a local tuning job."""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Generic, TextIO, TypeVar

from container.classifier.environment import (
    BASE_DIR_VARIABLE,
    JOB_NAME_VARIABLE,
    TRACKING_VARIABLE,
)
from container.classifier.errors import UserError
from image_classifier.platform import containers, opt_ml, processes, training
from image_classifier.platform.program import ROOT
from image_classifier.platform.sandbox import labels
from image_classifier.platform.sandbox.launch import Limits, Running

# Between the end of a container's output and its exit code.
_END_SECONDS = 5

# What stops a program: its process id, or its container.
Handle = TypeVar("Handle")


class TrialFailedError(Exception):
    """A trial that failed; the others continue."""


class Programs(AbstractContextManager["Programs[Handle]"], Generic[Handle]):
    """Runs programs and stops all of them, also while they start."""

    def __init__(self) -> None:
        """Start without programs."""
        self._running: list[Handle] = []
        # A signal handler can run in the thread that holds it.
        self._lock = threading.RLock()
        self.is_stopped = False

    def __exit__(self, *_: object) -> None:
        """Stop all programs."""
        self.stop()

    @contextmanager
    def lines(self, base_dir: Path) -> Iterator[Iterator[str]]:
        """Run the program in a prepared folder during a `with` block; yield the lines of its log.

        The end of the block kills the program and all processes that it started.

        Raises:
            TrialFailedError: the program failed, or the programs were stopped.
            UserError: the program cannot be loaded.
        """
        with self._lock:
            if self.is_stopped:
                raise TrialFailedError("stopped")
            handle, output = self._start(base_dir)
            self._running.append(handle)
            if self.is_stopped:
                # A signal arrived after the check above.
                self._kill(handle)
        reason: str | None = None
        try:
            with (base_dir / training.LOG_FILE).open("a", buffering=1, encoding="utf-8") as log:

                def read_lines() -> Iterator[str]:
                    nonlocal reason
                    for line in output:
                        log.write(line)
                        yield line
                    if reason := self._why_killed(handle):
                        print(f"the training was killed: {reason}", file=log)

                yield read_lines()
        finally:
            self._kill(handle)
            # The output ends when all processes of the program have ended.
            for _ in output:
                pass
            with self._lock:
                self._running.remove(handle)
            output.close()
        if self.is_stopped:
            raise TrialFailedError("stopped")
        if reason is not None:
            raise TrialFailedError(reason)
        failure = base_dir / opt_ml.FAILURE
        if failure.is_file():
            text = failure.read_text(encoding="utf-8", errors="replace")
            raise TrialFailedError(text.splitlines()[0][:300])

    def stop(self) -> None:
        """Kill all programs, and reject new ones."""
        with self._lock:
            self.is_stopped = True
            for handle in self._running:
                self._kill(handle)

    @abstractmethod
    def _start(self, base_dir: Path) -> tuple[Handle, TextIO]:
        """Start a program; return what stops it, and its output."""

    def _why_killed(self, _handle: Handle) -> str | None:
        """Return why the system killed a program whose output has ended, if it did."""
        return None

    @abstractmethod
    def _kill(self, handle: Handle) -> None:
        """Kill a program that may have ended."""


class ForkedPrograms(Programs[int]):
    """Processes, forked from one process that has loaded the code."""

    def __init__(self, threads: int) -> None:
        """Start that process; every program computes with `threads` threads."""
        super().__init__()
        self._socket, child_end = socket.socketpair()
        variables = processes.VARIABLES | labels.variables() | {"OMP_NUM_THREADS": str(threads)}
        self._loader = subprocess.Popen(
            [sys.executable, "-m", "image_classifier.local.warm_program"],
            cwd=ROOT,
            env=os.environ | variables,
            stdin=child_end.fileno(),
            # A new session, so that Ctrl-C in a terminal does not reach it.
            start_new_session=True,
        )
        child_end.close()

    def __exit__(self, *_: object) -> None:
        """Stop all programs and the process that forks them."""
        super().__exit__()
        self._socket.close()
        self._loader.wait()

    def _start(self, base_dir: Path) -> tuple[int, TextIO]:
        reading, writing = os.pipe()
        try:
            variables = json.dumps(_variables(base_dir)).encode()
            socket.send_fds(self._socket, [variables], [writing])
            answer = self._socket.recv(20)
        except OSError:
            answer = b""
        finally:
            os.close(writing)
        if not answer:
            os.close(reading)
            raise UserError("the training program cannot be loaded: read the error above")
        return int(answer), os.fdopen(reading, encoding="utf-8", errors="replace")

    def _kill(self, handle: int) -> None:
        # macOS raises PermissionError for processes that have ended.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(handle, signal.SIGKILL)


class ContainerPrograms(Programs[Running]):
    """Containers, one for each program."""

    def __init__(
        self,
        threads: int,
        channels: Sequence[Path],
        *,
        has_network: bool,
        limits: Limits,
    ) -> None:
        """Every program computes with `threads` threads on the images in `channels`."""
        super().__init__()
        self._threads = threads if limits.cpus is None else min(threads, math.ceil(limits.cpus))
        self._limits = limits
        self._channels = channels
        self._has_network = has_network

    def _start(self, base_dir: Path) -> tuple[Running, TextIO]:
        variables = _variables(base_dir) | {"OMP_NUM_THREADS": str(self._threads)}
        program = containers.training(
            base_dir,
            self._channels,
            variables,
            has_network=self._has_network,
            limits=self._limits,
        )
        running, output = training.start(*program, is_quiet=True)
        return running, TextIOWrapper(output, encoding="utf-8", errors="replace")

    def _why_killed(self, handle: Running) -> str | None:
        with self._lock:
            # Otherwise it is removed.
            if self.is_stopped or not handle.wait(_END_SECONDS):
                return None
            return handle.why_killed()

    def _kill(self, handle: Running) -> None:
        handle.close()


def _variables(base_dir: Path) -> dict[str, str]:
    variables = {BASE_DIR_VARIABLE: str(base_dir.resolve()), JOB_NAME_VARIABLE: base_dir.name}
    # A trial ends when its result is known, which would leave its run on the server unfinished.
    return processes.VARIABLES | variables | {TRACKING_VARIABLE: ""}
