"""Images' turns: first come, first served, a few at a time, whichever request they are of."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from werkzeug.exceptions import ClientDisconnected, HTTPException, ServiceUnavailable

from container.serving.http.decoding import EncodedImage
from container.serving.http.encoding import Answer
from container.serving.http.errors import overloaded
from container.serving.model.predictor import Predictor
from container.serving.model.threads import Threads

# An image is alone when none was in work beside another for so long. Among requests that now and
# then overlap, one on all processors would be in the next one's way.
QUIET_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Predicted:
    """An image's answer, and when its steps began and ended, by `time.perf_counter`."""

    answer: Answer
    began: float
    decoded: float
    ended: float


class Pool:
    """Threads that decode and predict."""

    def __init__(self, images: int, batched: int = 0) -> None:
        """Make as many threads as images may be in work: the others are still compressed.

        Args:
            images: At a time, for decoding takes memory.
            batched: More than these, which are decoded, and small by now: they wait for a batch.
        """
        # First come, first served, which a lock is not.
        self._threads = Threads(images + batched, "predict")
        self._decoding = threading.Semaphore(images)
        self._lock = threading.Lock()
        self._images = 0
        self._last_crowded = -math.inf

    def predict(
        self,
        predictor: Predictor,
        images: Sequence[EncodedImage],
        *,
        patience: float,
        seconds: float,
        has_gone: Callable[[], bool],
    ) -> Sequence[Predicted]:
        """Predict a request's images, in parallel; one that cannot be read fails alone.

        Raises:
            ServiceUnavailable: their turn did not come within `patience` seconds, or they all
                together take more than `seconds`.
            ClientDisconnected: it came, but `has_gone` says that nobody waits any more.
        """

        def work(image: EncodedImage) -> Predicted:
            if has_gone():
                raise ClientDisconnected
            return self._predict(predictor, image)

        deadline = time.monotonic() + seconds
        with self._lock:
            self._images += len(images)
            if self._images > 1:
                self._last_crowded = time.monotonic()
        try:
            turns = [self._threads.submit(work, image) for image in images]
            try:
                _wait_for_turn(turns[0], patience)
                return [_result(turn, deadline) for turn in turns]
            finally:
                # Before we wait for any: its thread would begin with the next one.
                begun = [turn for turn in turns if not turn.cancel()]
                for turn in begun:
                    # Once we return, the predictor's memory may be freed.
                    turn.exception()
        finally:
            with self._lock:
                self._images -= len(images)

    def _predict(self, predictor: Predictor, encoded: EncodedImage) -> Predicted:
        with self._decoding:
            began = time.perf_counter()
            try:
                image = encoded(predictor.preprocessing)
            except HTTPException as error:
                now = time.perf_counter()
                return Predicted(answer=error, began=began, decoded=now, ended=now)
            decoded = time.perf_counter()
        answer = predictor.predict(image, alone=self._is_quiet())
        return Predicted(answer=answer, began=began, decoded=decoded, ended=time.perf_counter())

    def _is_quiet(self) -> bool:
        return self._images == 1 and time.monotonic() > self._last_crowded + QUIET_SECONDS


def _wait_for_turn(turn: Future[Predicted], patience: float) -> None:
    try:
        turn.exception(timeout=patience)
    except TimeoutError:
        # Where it cannot be taken back, it has begun.
        if turn.cancel():
            raise overloaded() from None


def _result(turn: Future[Predicted], deadline: float) -> Predicted:
    try:
        return turn.result(max(0.0, deadline - time.monotonic()))
    except TimeoutError:
        message = "the request's images take too long: send fewer at a time"
        raise ServiceUnavailable(message) from None
