"""Dynamic batching: collect images from several threads and predict them together.

Independent of the device.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeAlias

from werkzeug.exceptions import InternalServerError

from container.classifier.preprocessing import Pixels
from container.serving.model.outcome import Probabilities

logger = logging.getLogger(__name__)

InferBatch: TypeAlias = Callable[[Sequence[Pixels]], Probabilities]
"""Turns N images into float32 (N, classes); called by one thread at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batching:
    """When a batch starts."""

    max_batch_size: int
    """A batch of this many images starts at once."""

    batch_timeout_seconds: float
    """How long a smaller batch waits for more images. It also waits while another batch is
    computed, which costs no time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Item:
    image: Pixels

    due: float
    """By `time.monotonic`, when it starts in a batch that is not full."""

    probabilities: "Future[Probabilities]" = field(default_factory=Future)


class Batcher:
    """A first-in first-out queue of images, and threads that predict them in batches."""

    def __init__(self, lanes: Sequence[InferBatch], batching: Batching) -> None:
        """Start a thread for each lane: with two, one batch is copied while one is computed."""
        self._batching = batching
        self._changed = threading.Condition()
        self._queue: deque[_Item] = deque()
        self._in_flight = 0
        self._is_closed = False
        self._threads = [
            # Daemons: when the process exits, all requests have been answered.
            threading.Thread(target=self._work, args=(lane,), name="batch", daemon=True)
            for lane in lanes
        ]
        for thread in self._threads:
            thread.start()

    def infer(self, image: Pixels, *, is_idle: bool) -> Probabilities:
        """Predict an image in a batch. Thread-safe.

        Args:
            image: uint8 of shape (image_size, image_size, 3).
            is_idle: This is the only image in the server: do not wait for others.

        Raises:
            InternalServerError: The batch failed; the log has the reason.
            RuntimeError: The batcher is closed.
        """
        timeout = 0.0 if is_idle else self._batching.batch_timeout_seconds
        item = _Item(image=image, due=time.monotonic() + timeout)
        with self._changed:
            if self._is_closed:
                raise RuntimeError("the batcher is closed")
            self._queue.append(item)
            # Only the first image, which sets the deadline, and the last one can start a batch.
            if len(self._queue) == 1 or len(self._queue) >= self._batching.max_batch_size:
                self._changed.notify_all()
        return item.probabilities.result()

    def close(self) -> None:
        """Predict the queued images, then stop the threads."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def __len__(self) -> int:
        """Return the number of queued images."""
        return len(self._queue)

    def _work(self, infer_batch: InferBatch) -> None:
        while items := self._next_batch():
            self._predict(items, infer_batch)

    def _next_batch(self) -> Sequence[_Item]:
        """Wait for a batch and remove it from the queue; return an empty one when closed."""
        with self._changed:
            while (seconds := self._seconds_until_due()) != 0:
                if self._is_closed and not self._queue:
                    return ()
                self._changed.wait(seconds)
            self._in_flight += 1
            size = min(len(self._queue), self._batching.max_batch_size)
            return [self._queue.popleft() for _ in range(size)]

    def _seconds_until_due(self) -> float | None:
        """Return 0 if a batch is due, None if that depends on other threads."""
        if len(self._queue) >= self._batching.max_batch_size:
            return 0.0
        if not self._queue or self._in_flight:
            return None
        return 0.0 if self._is_closed else max(0.0, self._queue[0].due - time.monotonic())

    def _predict(self, items: Sequence[_Item], infer_batch: InferBatch) -> None:
        try:
            rows = infer_batch([item.image for item in items])
            if len(rows) != len(items):
                raise ValueError(f"{len(items)} images got {len(rows)} answers")
        except Exception:
            # Logged once per batch; the request log has each request's status.
            logger.exception("a batch of %d images failed", len(items))
            rows = None
        with self._changed:
            self._in_flight -= 1
            self._changed.notify_all()
        for number, item in enumerate(items):
            if rows is None:
                item.probabilities.set_exception(InternalServerError())
            else:
                item.probabilities.set_result(rows[number])
