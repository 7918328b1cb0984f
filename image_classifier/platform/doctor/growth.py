"""Memory that grows with each request."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from image_classifier.platform.sandbox.launch import Running

# Between two measurements of the memory: at most so many requests, fewer if they are slow.
_BATCH = 20
_MIN_BATCHES, _MAX_BATCHES = 12, 200

# What allocators and caches take, although nothing is kept.
_FLOOR_BYTES = 8 * 2**20

# Per request: less would be found after hours only.
_LEAST_BYTES = 4 * 2**10
# Nothing but data that is kept grows so fast.
_CERTAIN_BYTES = 512 * 2**10
# These runtimes collect hundreds of MB of garbage late; AWS's model server leaves 8 KB per ping.
_LATE_COLLECTORS = {"java", "dotnet"}

# A leak grows evenly: each third of the requests causes at least this fraction of the growth.
_STEADY = 1 / 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Growth:
    """Memory before and after requests, in bytes."""

    before: int
    after: int
    requests: int

    def __str__(self) -> str:
        """Return the evidence."""
        mebibytes = [f"{size / 2**20:.0f} MiB" for size in (self.before, self.after)]
        return f"{mebibytes[0]}, and {mebibytes[1]} after {self.requests} more requests"


class TooSlowError(Exception):
    """The time is too short for enough requests."""


def measure(running: Running, send: Callable[[], object], seconds: float) -> Growth | None:
    """Send requests for a time; return the growth of the memory if all of them add to it.

    Raises:
        TooSlowError: so few requests can be sent in this time that a growth would not be seen.
    """
    # The shortest, because other programs can delay one.
    one = min(_duration(send) for _ in range(3))
    batch = min(_BATCH, int(seconds / _MIN_BATCHES / one))
    if batch < 1:
        raise TooSlowError(f"a request takes {one:.1f} s")
    least = _CERTAIN_BYTES if running.programs() & _LATE_COLLECTORS else _LEAST_BYTES
    deadline = time.monotonic() + seconds
    sizes: list[int] = []
    while time.monotonic() < deadline and len(sizes) <= _MAX_BATCHES:
        size = running.memory()
        if size is None or running.exit_code() is not None:
            return None
        sizes.append(size)
        growth = steady(sizes, batch, least)
        if growth is not None and growth.after - growth.before > _CERTAIN_BYTES * growth.requests:
            return growth
        for _ in range(batch):
            send()
            if time.monotonic() > deadline:
                break
    return steady(sizes, batch, least)


def steady(sizes: Sequence[int], batch: int, least: int = _LEAST_BYTES) -> Growth | None:
    """Return the growth in a series of measurements, one a batch; None: it has no leak.

    The first quarter of the requests fills caches. After that, what warms up grows less and less,
    and a leak by the same amount each time.
    """
    tail = sizes[len(sizes) // 4 :]
    if len(tail) <= 3:  # noqa: PLR2004 - a difference for each third
        return None
    last = len(tail) - 1
    marks = [tail[last * third // 3] for third in range(4)]
    total, requests = marks[-1] - marks[0], last * batch
    thirds = [after - before for before, after in pairwise(marks)]
    if total < max(_FLOOR_BYTES, least * requests) or min(thirds) < total * _STEADY:
        return None
    return Growth(before=marks[0], after=marks[-1], requests=requests)


def _duration(send: Callable[[], object]) -> float:
    start = time.monotonic()
    send()
    return max(time.monotonic() - start, 1e-4)
