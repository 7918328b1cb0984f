"""The time budget of a job, `max_minutes`: its schedule follows the clock."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

logger = logging.getLogger(__name__)

# Position of a first step, whose time is not known yet: the learning rate is not zero.
FIRST_FRACTION = 0.001

# Part of the budget by which the quantization may exceed it before it is ended.
TOLERANCE = 0.05


class TimeBudget:
    """Measures a job against its `max_minutes`, if it has them.

    Each step advances the schedule by the part of the remaining time that the last step took. On a
    machine that becomes slower fewer steps follow, and the learning rate still falls to zero.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start the clock, which returns seconds; there is no limit yet."""
        self._clock, self._started = clock, clock()
        self._last_step: float | None = None
        self._earlier = 0.0
        self._ending_seconds: Callable[[float | None], float] = lambda _: 0.0
        self.limit_seconds = math.inf
        self.start_seconds = 0.0
        """From the start of the program to that of the job."""

        self.evaluation_seconds: float | None = None
        """Of the last evaluation of the validation images."""

        self.fraction = 0.0
        """Position in the schedule; 1 if the time is over."""

        self.sufficient_minutes = 0
        """A limit that leaves time for steps, from the first step on."""

    def limit(self, minutes: float, ending_seconds: Callable[[float | None], float]) -> None:
        """Set the limit of the job, over all its restarts.

        Args:
            minutes: from its start to its end.
            ending_seconds: returns the expected seconds after the last step, given those of the
                last evaluation, if there was one.
        """
        self.limit_seconds, self._ending_seconds = 60 * minutes, ending_seconds

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit."""
        return self.limit_seconds < math.inf

    @property
    def used_seconds(self) -> float:
        """Seconds that the job has taken, also before a stop from which it continues."""
        return self._earlier + self._clock() - self._started

    @property
    def training_seconds(self) -> float:
        """Seconds that are left for steps, before the last evaluation and the results."""
        ending = self._ending_seconds(self.evaluation_seconds)
        return self.limit_seconds - ending - self.used_seconds

    def advance(self, *, is_required: bool) -> None:
        """Advance the schedule to the next step, to 1 if there is no time for it.

        A step that `is_required` is made anyway.
        """
        now, left = self._clock(), self.training_seconds
        if self._last_step is None:
            self._log_plan(left)
        step = 0.0 if self._last_step is None else now - self._last_step
        self._last_step = now
        if left > step:
            self.fraction += (1 - self.fraction) * step / (left + step)
        elif not is_required:
            self.fraction = 1.0
        self.fraction = max(self.fraction, FIRST_FRACTION)

    def position(self, step: int, total_steps: int) -> float:
        """Return the position in the schedule; without a limit that of one of the steps."""
        return self.fraction if self.is_limited else step / (total_steps + 1)

    def _log_plan(self, left: float) -> None:
        limit = self.limit_seconds / 60
        ending = self._ending_seconds(self.evaluation_seconds) / 60
        logger.info(
            "max_minutes: %.1f of %g minutes for steps, then about %.1f for the last evaluation, "
            "the model and the reports",
            max(0.0, left) / 60,
            limit,
            ending,
        )
        self.sufficient_minutes = math.ceil(limit + 1 - min(left, 0.0) / 60)
        if left <= 0:
            logger.warning(
                "max_minutes=%g leaves no time to train the network: set it to %d or more",
                limit,
                self.sufficient_minutes,
            )

    def log_shortage(self, steps: int, least: int) -> None:
        """Log at the end of the job if there was a limit and no time for the `least` steps."""
        if self.is_limited and steps < least:
            few = f"training had {steps} of at least {least} steps"
            logger.warning(
                "max_minutes=%g was too short: %s; set it to %d or more",
                self.limit_seconds / 60,
                few if steps else "only the head was trained",
                # Unknown if a restarted job had no time for a step.
                self.sufficient_minutes or math.ceil(self.limit_seconds / 60) + 1,
            )

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Measure an evaluation."""
        start = self._clock()
        yield
        self.evaluation_seconds = self._clock() - start

    def quantization_seconds(self) -> float:
        """Return the seconds until the quantization must end."""
        return max(0.0, (1 + TOLERANCE) * self.limit_seconds - self.used_seconds)

    def sentence(self) -> str:
        """Return how much is left, for a progress line; empty without a limit."""
        if not self.is_limited:
            return ""
        left = max(0.0, self.limit_seconds - self.used_seconds) / 60
        return f"{left:.1f} of {self.limit_seconds / 60:g} minutes left"

    def state_dict(self) -> dict[str, float | None]:
        """Return what a checkpoint holds."""
        return {
            "fraction": self.fraction,
            "used_seconds": self.used_seconds,
            "evaluation_seconds": self.evaluation_seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the budget of a job that was stopped."""
        self.fraction, self._earlier = state["fraction"], state["used_seconds"]
        self.evaluation_seconds = state["evaluation_seconds"]
