"""Thread pool that decodes and predicts the images of all requests, first come, first served."""

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

# Time without two images at once before an image may use all cores. If requests overlap now and
# then, a prediction on all cores would delay the next one.
QUIET_SECONDS = 1.0


class Pool:
    """Limits how many images are decoded and predicted at the same time."""

    def __init__(self, images: int, batched: int = 0) -> None:
        """Start the threads.

        Args:
            images: Images decoded at the same time. Images in the queue are still compressed.
            batched: Additional images, decoded and resized, that wait for a batch or are in one.
        """
        self._threads = ThreadPool(images + batched, "predict")
        self._decoding = threading.Semaphore(images)
        self._lock = threading.Lock()
        self._images = 0
        self._last_overlap = -math.inf

    def predict(
        self,
        predictor: Predictor,
        images: Sequence[ImageDecoder],
        *,
        queue_timeout_seconds: float,
        seconds: float,
        has_disconnected: Callable[[], bool],
    ) -> Sequence[Outcome]:
        """Predict a request's images in parallel; an unreadable image does not fail the others.

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
                self._last_overlap = time.monotonic()
        try:
            futures = [self._threads.submit(work, image) for image in images]
            try:
                _wait_for_start(futures[0], queue_timeout_seconds)
                return [_result(future, deadline) for future in futures]
            finally:
                # Cancel all before waiting for one: its thread would start the next one.
                started = [future for future in futures if not future.cancel()]
                for future in started:
                    # The caller may free the predictor's memory after this method returns.
                    future.exception()
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
        is_idle = self._images == 1 and time.monotonic() > self._last_overlap + QUIET_SECONDS
        result = predictor.predict(image, is_idle=is_idle)
        return Outcome(result=result, began=began, decoded=decoded, ended=time.perf_counter())


def _wait_for_start(future: Future[Outcome], timeout: float) -> None:
    try:
        future.exception(timeout=timeout)
    except TimeoutError:
        # A future that runs cannot be canceled.
        if future.cancel():
            raise Overloaded from None


def _result(future: Future[Outcome], deadline: float) -> Outcome:
    try:
        return future.result(max(0.0, deadline - time.monotonic()))
    except TimeoutError:
        raise ServiceUnavailable(
            "the request's images take too long: send fewer at a time"
        ) from None
