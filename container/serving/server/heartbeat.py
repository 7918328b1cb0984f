"""Heartbeats of workers, without the time in which the machine was suspended."""

import time
from collections.abc import Callable

# gunicorn's master polls once a second.
POLL_SECONDS = 2.0


def ignore_suspension(last_update: Callable[[], float]) -> Callable[[], float]:
    """Return a function for the master to poll instead of `last_update`.

    After a suspension, for instance of a paused container, the master may poll before the worker
    has run. Between two polls a worker therefore counts as silent for `POLL_SECONDS` at most.
    """
    update = polled = time.monotonic()
    silence = 0.0

    def last_running_update() -> float:
        nonlocal update, polled, silence
        last, now = last_update(), time.monotonic()
        # The file of a worker that has not started yet has the time of the system clock.
        if last != update or last > now:
            update, silence = last, 0.0
        else:
            silence += min(now - polled, POLL_SECONDS)
        polled = now
        return now - silence

    return last_running_update
