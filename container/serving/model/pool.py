"""Images' turns: first come, first served, a few at a time, whichever request they are of."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from werkzeug.exceptions import ClientDisconnected, HTTPException, ServiceUnavailable

from container.serving.model.errors import Overloaded
from container.serving.model.outcome import ImageDecoder, Outcome
from container.serving.model.predictor import Predictor
from container.serving.model.threads import ThreadPool

# An image is alone when none was in work beside another for so long. Among requests that now and
# then overlap, one on all processors would be in the next one's way.
QUIET_SECONDS = 1.0


class Pool:
    """ThreadPool that decode and predict."""

    def __init__(self, images: int, batched: int = 0) -> None:
        """Make as many threads as images may be in work: the others are still compressed.

        Args:
            images: At a time, for decoding takes memory.
            batched: More than these, which are decoded, and small by now: they wait for a batch.
        """
        # First come, first served, which a lock is not.
        self._threads = ThreadPool(images + batched, "predict")
        self._decoding = threading.Semaphore(images)
        self._lock = threading.Lock()
        self._images = 0
        self._last_crowded = -math.inf

    def predict(
        self,
        predictor: Predictor,
        images: Sequence[ImageDecoder],
        *,
        queue_timeout_seconds: float,
        seconds: float,
        has_disconnected: Callable[[], bool],
    ) -> Sequence[Outcome]:
        """Predict a request's images, in parallel; one that cannot be read fails alone.

        Raises:
            Overloaded: no thread was free within `queue_timeout_seconds`.
            ServiceUnavailable: all images together take more than `seconds`.
            ClientDisconnected: `has_disconnected` returned True before an image was decoded.
        """

        def work(image: ImageDecoder) -> Outcome:
            if has_disconnected():
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
                _wait_for_turn(turns[0], queue_timeout_seconds)
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

    def _predict(self, predictor: Predictor, decode: ImageDecoder) -> Outcome:
        with self._decoding:
            began = time.perf_counter()
            try:
                image = decode(predictor.preprocessing)
            except HTTPException as error:
                now = time.perf_counter()
                return Outcome(result=error, began=began, decoded=now, ended=now)
            decoded = time.perf_counter()
        result = predictor.predict(image, is_idle=self._is_quiet())
        return Outcome(result=result, began=began, decoded=decoded, ended=time.perf_counter())

    def _is_quiet(self) -> bool:
        return self._images == 1 and time.monotonic() > self._last_crowded + QUIET_SECONDS


def _wait_for_turn(turn: Future[Outcome], timeout: float) -> None:
    try:
        turn.exception(timeout=timeout)
    except TimeoutError:
        # Where it cannot be taken back, it has begun.
        if turn.cancel():
            raise Overloaded from None


def _result(turn: Future[Outcome], deadline: float) -> Outcome:
    try:
        return turn.result(max(0.0, deadline - time.monotonic()))
    except TimeoutError:
        message = "the request's images take too long: send fewer at a time"
        raise ServiceUnavailable(message) from None
