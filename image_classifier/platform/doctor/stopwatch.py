"""The time that a program takes, also while other programs have the processors."""

import time

from image_classifier.platform.sandbox.launch import Running


class Stopwatch:
    """Measures seconds, less those in which other programs had the processors."""

    def __init__(self, running: Running, *, is_starting: bool = False) -> None:
        """Start now. While a program starts, most of its threads wait for each other."""
        self._running, self._combine = running, sum if is_starting else max
        self._waits = running.cpu_waits()
        self._start = time.monotonic()

    def seconds(self) -> float:
        """Return the time, less the longest wait of a thread for a processor.

        While the program starts, all waits count.
        """
        elapsed = time.monotonic() - self._start
        waits = self._running.cpu_waits()
        waited = [wait - self._waits.get(thread, 0) for thread, wait in waits.items()]
        return elapsed - min(self._combine([0.0, *waited]), elapsed)
