"""Images' batches: whoever asks waits until the batch with their image is predicted.

Knows nothing of the device that computes.
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
    """When images that wait go as a batch."""

    max_batch_size: int
    """Images; so many go at once."""

    batch_timeout_seconds: float
    """How long fewer wait for more, and they wait on while a batch is computed: that costs
    nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Turn:
    image: Pixels

    due: float
    """By `time.monotonic`, when it goes in a batch that is not full."""

    answer: "Future[Probabilities]" = field(default_factory=Future)


class Batcher:
    """Threads that take what waits, first come, first served; any number may call `infer`."""

    def __init__(self, lanes: Sequence[InferBatch], batching: Batching) -> None:
        """Start a thread for each lane: with two, one batch is made ready while one is computed."""
        self._batching = batching
        self._changed = threading.Condition()
        self._waiting: deque[_Turn] = deque()
        self._under_way = 0
        self._is_closed = False
        self._threads = [
            # Daemons: a process that ends has answered everyone, and waits for no more.
            threading.Thread(target=self._work, args=(lane,), name="batch", daemon=True)
            for lane in lanes
        ]
        for thread in self._threads:
            thread.start()

    def infer(self, image: Pixels, *, is_idle: bool) -> Probabilities:
        """Predict in a batch; an image that is alone waits for no other.

        Raises:
            InternalServerError: the batch failed; the log says why.
            RuntimeError: the batcher is closed.
        """
        timeout = 0.0 if is_idle else self._batching.batch_timeout_seconds
        turn = _Turn(image=image, due=time.monotonic() + timeout)
        with self._changed:
            if self._is_closed:
                message = "nothing is predicted any more"
                raise RuntimeError(message)
            self._waiting.append(turn)
            # Between the first, which sets the clock, and the last, nothing changes for anyone.
            if len(self._waiting) == 1 or len(self._waiting) >= self._batching.max_batch_size:
                self._changed.notify_all()
        return turn.answer.result()

    def close(self) -> None:
        """Predict whatever waits, then end the threads."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self, infer_batch: InferBatch) -> None:
        while turns := self._next_batch():
            self._answer(turns, infer_batch)

    def _next_batch(self) -> Sequence[_Turn]:
        """Wait for a batch and take it; an empty one means that no more will come."""
        with self._changed:
            while not self._is_due():
                if self._is_closed and not self._waiting:
                    return ()
                self._changed.wait(self._patience())
            self._under_way += 1
            size = min(len(self._waiting), self._batching.max_batch_size)
            return [self._waiting.popleft() for _ in range(size)]

    def _is_due(self) -> bool:
        if len(self._waiting) >= self._batching.max_batch_size:
            return True
        if not self._waiting or self._under_way:
            return False
        return self._is_closed or time.monotonic() >= self._waiting[0].due

    def _patience(self) -> float | None:
        """Return seconds until a batch is due, None where that is for others to say."""
        if not self._waiting or self._under_way:
            return None
        return max(0.0, self._waiting[0].due - time.monotonic())

    def _answer(self, turns: Sequence[_Turn], infer_batch: InferBatch) -> None:
        answers: Sequence[Probabilities] | None = None
        try:
            answers = _rows(infer_batch([turn.image for turn in turns]), len(turns))
        except Exception:
            # Once for all of them; each request's own line has its status.
            logger.exception("a batch of %d images failed", len(turns))
        with self._changed:
            self._under_way -= 1
            self._changed.notify_all()
        for number, turn in enumerate(turns):
            if answers is None:
                turn.answer.set_exception(InternalServerError())
            else:
                turn.answer.set_result(answers[number])


def _rows(answers: Probabilities, images: int) -> Sequence[Probabilities]:
    """Return the answer of each image.

    Raises:
        ValueError: there are more or fewer; somebody would wait for ever.
    """
    if len(answers) != images:
        message = f"{images} images got {len(answers)} answers"
        raise ValueError(message)
    return list(answers)
