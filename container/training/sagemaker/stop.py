"""SageMaker's stop: SIGTERM, and 120 seconds later SIGKILL."""

import signal
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):  # noqa: N818 - a request that was met, no error
    """The job was stopped before there was anything to save."""

    def __init__(
        self, message: str = "stopped before the first step: there is no model to save"
    ) -> None:
        """Say so, unless there is more to say."""
        super().__init__(message)


class StopRequest:
    """A flag that SIGTERM sets; the training loop looks at it between steps."""

    def __init__(self) -> None:
        """Start without a request."""
        self.requested = False

    def listen(self) -> None:
        """Set the flag on SIGTERM and SIGINT from now on.

        A program that runs as PID 1 ignores SIGTERM unless it says otherwise.
        """
        for number in SIGNALS:
            signal.signal(number, self._request)
        # A supervisor has held them back.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def check(self) -> None:
        """Raise `Stopped` when a stop was requested.

        Raises:
            Stopped: it was.
        """
        if self.requested:
            raise Stopped

    def _request(self, _signal: int, _frame: FrameType | None) -> None:
        self.requested = True
