"""A program in the background: a process of this Python."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """A command, and its environment."""

    command: Sequence[str]

    variables: Mapping[str, str]
    """Environment variables, in addition to those of this process."""

    cwd: Path = ROOT

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
