"""Heartbeats of workers, without the time in which the machine was suspended."""

import time
from collections.abc import Callable

# gunicorn's master polls once a second.
POLL_SECONDS = 2.0


def ignore_suspension(last_update: Callable[[], float]) -> Callable[[], float]:
    """Wrap the function by which the master polls the time of a worker's last heartbeat.

    A resumed master may poll before the worker has run, so the time between two polls has a limit.
    """
    update, polled, silence = 0.0, time.monotonic(), 0.0

    def poll() -> float:
        nonlocal update, polled, silence
        last, now = last_update(), time.monotonic()
        # Before the first heartbeat, `last` is a time of the system clock.
        is_silent = last == update and last <= now
        silence = silence + min(now - polled, POLL_SECONDS) if is_silent else 0.0
        update, polled = last, now
        return now - silence

    return poll
