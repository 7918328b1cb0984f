"""Slots for requests in flight, with a bounded first-in first-out queue."""

import time
from collections import deque
from collections.abc import Callable
from threading import Lock

# The smallest limit of the queue that the measured rate can lead to.
MIN_QUEUED = 16

# Before a rejection, because some clients send the next request at once.
REJECTION_SECONDS = 1.0


class Slots:
    """A semaphore in which, unlike in `threading.Semaphore`, no request overtakes another one."""

    def __init__(
        self, free: int, *, max_queued: int, timeout: float, on_queue: Callable[[int], None]
    ) -> None:
        """Create `free` slots.

        Args:
            free: Requests in flight.
            max_queued: Requests, and so threads, that wait for a slot or a rejection.
            timeout: How long each of them waits, in seconds.
            on_queue: Called with the length of the queue when it changes.
        """
        self._free, self._max_queued, self._timeout = free, max_queued, timeout
        self._on_queue = on_queue
        self._queue: deque[Lock] = deque()
        self._excess = 0
        self._lock = Lock()
        # The average time between two releases, while requests wait.
        self._released, self._interval = 0.0, 1e-6

    def __len__(self) -> int:
        """Return the length of the queue."""
        return len(self._queue)

    def acquire(self) -> bool:
        """Take a slot, waiting in the queue if it has room; return whether there is a slot."""
        handover = Lock()
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            if len(self) + self._excess >= self._max_queued:
                return False
            # A request that would reach its timeout in the queue does not enter it.
            served_in_time = 1.2 * self._timeout / self._interval
            is_excess = len(self) >= max(served_in_time, MIN_QUEUED)
            if is_excess:
                self._excess += 1
            else:
                handover.acquire()
                self._queue.append(handover)
                self._on_queue(len(self))
        if is_excess:
            time.sleep(min(REJECTION_SECONDS, self._timeout))
            with self._lock:
                self._excess -= 1
            return False
        if handover.acquire(timeout=self._timeout):
            return True
        with self._lock:
            # Else a slot was handed over at the moment of the timeout.
            is_late = handover in self._queue
            if is_late:
                self._queue.remove(handover)
                self._on_queue(len(self))
        return not is_late

    def release(self) -> None:
        """Hand the slot to the request that waits longest."""
        with self._lock:
            before, self._released = self._released, time.monotonic() if self._queue else 0.0
            if before and self._released:
                self._interval += 0.05 * (self._released - before - self._interval)
            if self._queue:
                self._queue.popleft().release()
                self._on_queue(len(self))
            else:
                self._free += 1
