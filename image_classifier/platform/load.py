"""The highest rate of requests at which a server responds in time."""

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from container.classifier.machine import usable_cpus
from image_classifier.platform.sandbox.http_call import Response

# The 99th percentile of fewer requests is one of the slowest two.
_LEAST_REQUESTS = 200
_MAX_SECONDS = 40

# Requests at once; later ones wait, and their time counts from when they were due.
_MAX_IN_FLIGHT = 64

# The search ends when the rates that pass and fail differ by less.
_PRECISION = 1.1
_LOWEST, _HIGHEST = 0.1, 2000.0

# A rate counts if it passes so often: other programs can delay requests once.
_CONFIRMATIONS = 2

_VCPUS = (2, 4, 8, 16)


@dataclass(frozen=True, kw_only=True, slots=True)
class Capacity:
    """The highest rate that a server carries."""

    low: float
    """Requests a second that it carried each time; 0: none."""

    high: float
    """Requests a second that it did not carry."""

    limit: float
    """Seconds that the 99th percentile may have."""

    cpus: float
    """Usable CPUs of this machine, which the clients use too."""

    def summary(self, title: str = "load") -> str:
        """Return the result as a line."""
        if not self.low:
            return f"{title}: p99 is above {self.limit:g} s even at {self.high:.3g} requests/s"
        return (
            f"{title}: p99 stays below {self.limit:g} s at {self.low:.3g} requests/s, and not at "
            f"{self.high:.3g} (on {self.cpus:g} CPUs, which the clients use as well)"
        )

    def estimates(self) -> Iterator[str]:
        """Yield what instances with other numbers of vCPUs would carry."""
        if not self.low:
            return
        for vcpus in _VCPUS:
            low, high = (_rounded(rate * vcpus / self.cpus) for rate in (self.low, self.high))
            yield f"load: an instance with {vcpus} vCPU: about {low} to {high} requests/s"
        yield "load: if the rate is proportional to vCPUs, and one is as fast as a CPU here"

    def document(self) -> dict[str, float]:
        """Return the result as an object for JSON."""
        return {
            "low": self.low,
            "high": self.high,
            "p99_limit_seconds": self.limit,
            "cpus": self.cpus,
        }


def lines(loads: Mapping[str, Capacity | str]) -> Iterator[str]:
    """Yield the result of each setting; the best one has estimates for instances."""
    best = _best(loads)
    for setting, found in loads.items():
        title = f"load with {setting}" if setting else "load"
        if isinstance(found, str):
            yield f"{title}: {found}"
        else:
            yield found.summary(title)
    if best is not None and len(loads) > 1:
        yield f"load: the best setting is {best or 'the default'}"
    if best is not None and isinstance(found := loads[best], Capacity):
        yield from found.estimates()


def _rounded(rate: float) -> str:
    """Return a rate with three digits, without an exponent."""
    return f"{float(f'{rate:.3g}'):g}"


def document(loads: Mapping[str, Capacity | str]) -> Mapping[str, object]:
    """Return the best result, and those of all settings, as an object for JSON."""
    settings = [
        {"setting": setting, **(found.document() if isinstance(found, Capacity) else {})}
        | ({"message": found} if isinstance(found, str) else {})
        for setting, found in loads.items()
    ]
    best = _best(loads)
    found = None if best is None else loads[best]
    shown = found.document() if isinstance(found, Capacity) else {}
    return {**shown, "setting": best, "settings": settings}


def _best(loads: Mapping[str, Capacity | str]) -> str | None:
    rates = {key: found.low for key, found in loads.items() if isinstance(found, Capacity)}
    return max(rates, key=lambda key: rates[key], default=None)


def find_capacity(
    send: Callable[[], Response],
    limit: float,
    seconds: float,
) -> Capacity:
    """Find the highest rate at which a server responds in time.

    Args:
        send: sends one request; is called by many threads.
        limit: seconds that the 99th percentile of the response times may have.
        seconds: of a measurement at one rate; lower rates take longer.
    """
    with ThreadPoolExecutor(_MAX_IN_FLIGHT) as pool:
        passes = partial(_passes, pool, send, limit, seconds)
        low, high = search(passes, 1 / max(send().seconds, 0.001))
    return Capacity(low=low, high=high, limit=limit, cpus=usable_cpus())


def search(passes: Callable[[float], bool], first: float) -> tuple[float, float]:
    """Return the highest rate that passes, confirmed, and a slightly higher one that does not.

    Args:
        passes: whether a server carries a rate; the result may differ between calls.
        first: rate to begin with.
    """
    low, high = 0.0, math.inf
    rate = min(max(first, _LOWEST), _HIGHEST)
    while True:
        if passes(rate):
            low = rate
        else:
            high = rate
        if high == math.inf and low < _HIGHEST:
            rate = min(2 * low, _HIGHEST)
        elif not low and high > _LOWEST:
            rate = max(high / 2, _LOWEST)
        elif low and high / low > _PRECISION and high < math.inf:
            rate = math.sqrt(low * high)
        elif low and not all(passes(low) for _ in range(_CONFIRMATIONS)):
            low, high = 0.0, low
            rate = max(high / _PRECISION, _LOWEST)
        else:
            return low, min(high, _HIGHEST)


def _passes(
    pool: ThreadPoolExecutor,
    send: Callable[[], Response],
    limit: float,
    seconds: float,
    rate: float,
) -> bool:
    """Send requests at equal intervals, whether or not earlier ones have been answered.

    Ends when a request failed, or more than 1 % of the responses were too late.

    Returns:
        Whether all succeeded, and 99 % of them within `limit` seconds from when they were due.
    """
    count = max(int(rate * min(max(seconds, _LEAST_REQUESTS / rate), _MAX_SECONDS)), 1)
    start = time.monotonic()

    late, stop = 0, threading.Event()
    times: list[float] = []

    def request(number: int) -> bool:
        nonlocal late
        due = start + number / rate
        if stop.wait(max(due - time.monotonic(), 0)):
            return True
        is_success = send().is_success
        times.append(time.monotonic() - due)
        late += times[-1] > limit
        if not is_success or late > count / 100:
            stop.set()
        return is_success

    have_succeeded = all([*pool.map(request, range(count))])
    return have_succeeded and _percentile(times) <= limit


def _percentile(values: Sequence[float]) -> float:
    return sorted(values)[min(int(len(values) * 0.99), len(values) - 1)]
