"""SageMaker's stop: SIGTERM, and SIGKILL 120 seconds later."""

import signal
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):  # noqa: N818 - a stop that was requested is not an error
    """Work was interrupted by a stop request."""

    def __init__(
        self, message: str = "stopped before the first step: there is no model to save"
    ) -> None:
        """Default to the message of a job that has nothing to save."""
        super().__init__(message)


class Stop(ABC):
    """Whether work must stop: long work calls `check` several times a second."""

    @property
    @abstractmethod
    def requested(self) -> bool:
        """Whether a stop was requested."""

    def check(self) -> None:
        """Raise `Stopped` if a stop was requested.

        Raises:
            Stopped: it was.
        """
        if self.requested:
            raise Stopped


@dataclass(eq=False, kw_only=True)
class StopRequest(Stop):
    """A stop that a signal requests."""

    requested: bool = False

    def listen(self) -> None:
        """Request a stop on SIGTERM and SIGINT.

        The kernel ignores SIGTERM for PID 1 unless a handler is installed.
        """
        for number in SIGNALS:
            signal.signal(number, self._handle)
        # The supervisor has blocked them.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _handle(self, _signal: int, _frame: FrameType | None) -> None:
        self.requested = True


class TimeLimit(Stop):
    """A stop that is requested by another one, or when a time limit has passed."""

    def __init__(self, stop: Stop, seconds: float) -> None:
        """Start the time limit."""
        self._stop, self._deadline = stop, time.monotonic() + seconds

    @property
    def requested(self) -> bool:
        """Whether a stop was requested or the time limit has passed."""
        return self._stop.requested or self.seconds_left < 0

    @property
    def seconds_left(self) -> float:
        """Seconds until the time limit."""
        return self._deadline - time.monotonic()
