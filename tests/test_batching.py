"""Dynamic batching: every image gets its own prediction, and none waits forever."""

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest
from werkzeug.exceptions import InternalServerError

from container.classifier.preprocessing import Pixels
from container.serving.model.batching import Batcher, Batching, InferBatch
from container.serving.model.outcome import Probabilities

# Longer than any test lasts.
LONG_TIMEOUT = 300.0


def image(number: int) -> Pixels:
    return np.full((2, 2, 3), number, np.uint8)


def number_of(images: Sequence[Pixels]) -> Probabilities:
    """Predict the number that an image is filled with."""
    return np.stack([image[0, 0, :1] for image in images]).astype(np.float32)


@dataclass
class Device:
    """A fake device that signals the start of each batch and waits for a permit."""

    sizes: list[int] = field(default_factory=list)
    started: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    permits: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def infer(self, images: Sequence[Pixels]) -> Probabilities:
        self.sizes.append(len(images))
        self.started.release()
        self.permits.acquire()
        return number_of(images)


def batcher(*lanes: InferBatch, most: int = 4, timeout: float = 0.0) -> Batcher:
    return Batcher(lanes, Batching(max_batch_size=most, batch_timeout_seconds=timeout))


def submit(
    threads: ThreadPoolExecutor, target: Batcher, count: int, first: int = 0
) -> list[Future[Probabilities]]:
    return [
        threads.submit(target.infer, image(number), is_idle=False)
        for number in range(first, first + count)
    ]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_full_batch_starts_at_once_with_predictions_in_order() -> None:
    target = batcher(number_of, timeout=LONG_TIMEOUT)

    with ThreadPoolExecutor(4) as threads:
        answers = [future.result() for future in submit(threads, target, 4)]

    assert [int(answer[0]) for answer in answers] == [0, 1, 2, 3]


def test_only_image_in_the_server_does_not_wait() -> None:
    assert batcher(number_of, timeout=LONG_TIMEOUT).infer(image(7), is_idle=True) == [7]


def test_partial_batch_starts_after_the_timeout() -> None:
    assert batcher(number_of, timeout=0.01).infer(image(7), is_idle=False) == [7]


def test_images_that_arrive_during_a_batch_form_the_next_one() -> None:
    device = Device()
    target = batcher(device.infer, device.infer, most=8)

    with ThreadPoolExecutor(8) as threads:
        first = submit(threads, target, 1)
        device.started.acquire()
        others = submit(threads, target, 5, first=1)
        wait_until(lambda: len(target) == 5)
        # Their timeout has passed.
        time.sleep(0.05)
        assert device.sizes == [1]
        device.permits.release(2)

        assert [int(future.result()[0]) for future in first + others] == list(range(6))
    assert device.sizes == [1, 5]


def test_second_lane_starts_a_full_batch_during_the_first() -> None:
    device = Device()
    target = batcher(device.infer, device.infer, most=2, timeout=LONG_TIMEOUT)

    with ThreadPoolExecutor(5) as threads:
        answers = submit(threads, target, 5)
        # Both lanes are busy; the fifth image is queued.
        device.started.acquire()
        device.started.acquire()
        wait_until(lambda: len(target) == 1)
        device.permits.release(3)
        target.close()

        assert sorted(int(future.result()[0]) for future in answers) == list(range(5))
    assert device.sizes == [2, 2, 1]


@pytest.mark.parametrize("loses_a_row", [False, True])
def test_failed_batch_fails_its_images_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
    *,
    loses_a_row: bool,
) -> None:
    def fail_on_three(images: Sequence[Pixels]) -> Probabilities:
        if len(images) != 3:
            return number_of(images)
        if loses_a_row:
            return number_of(images[:2])
        message = "the device failed"
        raise RuntimeError(message)

    target = batcher(fail_on_three, most=3, timeout=LONG_TIMEOUT)

    with ThreadPoolExecutor(3) as threads:
        failed = [future.exception() for future in submit(threads, target, 3)]

    assert [type(error) for error in failed] == [InternalServerError] * 3
    assert len({id(error) for error in failed}) == 3
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.message == "a batch of 3 images failed"
    reason = "3 images got 2 answers" if loses_a_row else "the device failed"
    assert record.exc_info
    assert str(record.exc_info[1]) == reason
    assert target.infer(image(7), is_idle=True) == [7]


def test_close_predicts_queued_images_and_stops_the_threads() -> None:
    before = threading.active_count()
    target = batcher(number_of, number_of, timeout=LONG_TIMEOUT)

    with ThreadPoolExecutor(3) as threads:
        answers = submit(threads, target, 3)
        wait_until(lambda: len(target) == 3)
        target.close()
        assert [int(future.result()[0]) for future in answers] == [0, 1, 2]

    assert threading.active_count() == before
    with pytest.raises(RuntimeError, match="the batcher is closed"):
        target.infer(image(0), is_idle=True)


@pytest.mark.parametrize("lanes", [1, 2])
def test_concurrent_images_get_their_own_predictions_or_an_error(
    lanes: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    choose = random.Random(0)  # noqa: S311  no secret
    overlaps = threading.Semaphore(lanes)

    def sometimes_fail(images: Sequence[Pixels]) -> Probabilities:
        assert overlaps.acquire(blocking=False)
        try:
            time.sleep(choose.choice([0, 0, 0.001]))
            if choose.random() < 0.1:
                message = "random failure"
                raise RuntimeError(message)
            assert 1 <= len(images) <= 5
            return number_of(images)
        finally:
            overlaps.release()

    target = batcher(*[sometimes_fail] * lanes, most=5, timeout=0.002)
    outcomes: list[str] = []

    def predict_repeatedly(number: int) -> None:
        for repetition in range(100):
            try:
                answer = target.infer(image(number), is_idle=repetition % 7 == 0)
            except InternalServerError:
                outcomes.append("failed")
            else:
                outcomes.append("correct" if answer == [number] else "wrong")
            if repetition % 10 == number % 10:
                time.sleep(0.003)

    with ThreadPoolExecutor(16) as threads:
        for future in [threads.submit(predict_repeatedly, number) for number in range(16)]:
            future.result()
    target.close()

    assert len(outcomes) == 1600
    assert set(outcomes) == {"correct", "failed"}
