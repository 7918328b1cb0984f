"""Images that wait for their batch: nobody waits for ever, nobody gets another's answer."""

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
FOR_EVER = 300.0


def image(number: int) -> Pixels:
    return np.full((2, 2, 3), number, np.uint8)


def number_of(images: Sequence[Pixels]) -> Probabilities:
    """Answer each image with its number."""
    return np.stack([image[0, 0, :1] for image in images]).astype(np.float32)


@dataclass
class Device:
    """Computes when it is let; tells of its batches."""

    sizes: list[int] = field(default_factory=list)
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    go_on: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def infer(self, images: Sequence[Pixels]) -> Probabilities:
        self.sizes.append(len(images))
        self.begun.release()
        self.go_on.acquire()
        return number_of(images)


def batcher(*lanes: InferBatch, most: int = 4, timeout: float = 0.0) -> Batcher:
    return Batcher(lanes, Batching(max_batch_size=most, batch_timeout_seconds=timeout))


def ask(
    threads: ThreadPoolExecutor, asked: Batcher, count: int, first: int = 0
) -> list[Future[Probabilities]]:
    return [
        threads.submit(asked.infer, image(number), is_idle=False)
        for number in range(first, first + count)
    ]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_full_batch_goes_at_once_and_each_gets_its_own_answer() -> None:
    asked = batcher(number_of, timeout=FOR_EVER)

    with ThreadPoolExecutor(4) as threads:
        answers = [future.result() for future in ask(threads, asked, 4)]

    assert [int(answer[0]) for answer in answers] == [0, 1, 2, 3]


def test_an_image_that_is_alone_waits_for_no_other() -> None:
    assert batcher(number_of, timeout=FOR_EVER).infer(image(7), is_idle=True) == [7]


def test_who_finds_no_others_waits_for_the_timeout_alone() -> None:
    assert batcher(number_of, timeout=0.01).infer(image(7), is_idle=False) == [7]


def test_what_comes_while_a_batch_is_computed_waits_for_its_end_and_goes_together() -> None:
    device = Device()
    asked = batcher(device.infer, device.infer, most=8)

    with ThreadPoolExecutor(8) as threads:
        first = ask(threads, asked, 1)
        device.begun.acquire()
        others = ask(threads, asked, 5, first=1)
        wait_until(lambda: len(asked._waiting) == 5)
        # Their timeout is long over.
        time.sleep(0.05)
        assert device.sizes == [1]
        device.go_on.release(2)

        assert [int(future.result()[0]) for future in first + others] == list(range(6))
    assert device.sizes == [1, 5]


def test_a_full_batch_is_made_ready_while_another_is_computed() -> None:
    device = Device()
    asked = batcher(device.infer, device.infer, most=2, timeout=FOR_EVER)

    with ThreadPoolExecutor(5) as threads:
        answers = ask(threads, asked, 5)
        # Both lanes; the fifth is left.
        device.begun.acquire()
        device.begun.acquire()
        wait_until(lambda: len(asked._waiting) == 1)
        device.go_on.release(3)
        asked.close()

        assert sorted(int(future.result()[0]) for future in answers) == list(range(5))
    assert device.sizes == [2, 2, 1]


@pytest.mark.parametrize("lose", [False, True])
def test_a_failed_batch_fails_its_own_images_and_the_log_says_why_once(
    caplog: pytest.LogCaptureFixture,
    *,
    lose: bool,
) -> None:
    def fail_on_three(images: Sequence[Pixels]) -> Probabilities:
        if len(images) != 3:
            return number_of(images)
        if lose:
            return number_of(images[:2])
        message = "the device is on fire"
        raise RuntimeError(message)

    asked = batcher(fail_on_three, most=3, timeout=FOR_EVER)

    with ThreadPoolExecutor(3) as threads:
        failed = [future.exception() for future in ask(threads, asked, 3)]

    assert [type(error) for error in failed] == [InternalServerError] * 3
    assert len({id(error) for error in failed}) == 3
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.message == "a batch of 3 images failed"
    reason = "3 images got 2 answers" if lose else "the device is on fire"
    assert record.exc_info
    assert str(record.exc_info[1]) == reason
    assert asked.infer(image(7), is_idle=True) == [7]


def test_closing_answers_who_waits_and_ends_the_threads() -> None:
    before = threading.active_count()
    asked = batcher(number_of, number_of, timeout=FOR_EVER)

    with ThreadPoolExecutor(3) as threads:
        answers = ask(threads, asked, 3)
        wait_until(lambda: len(asked._waiting) == 3)
        asked.close()
        assert [int(future.result()[0]) for future in answers] == [0, 1, 2]

    assert threading.active_count() == before
    with pytest.raises(RuntimeError, match="nothing is predicted any more"):
        asked.infer(image(0), is_idle=True)


@pytest.mark.parametrize("lanes", [1, 2])
def test_nobody_waits_for_ever_and_nobody_gets_anothers_answer(
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
                message = "by chance"
                raise RuntimeError(message)
            assert 1 <= len(images) <= 5
            return number_of(images)
        finally:
            overlaps.release()

    asked = batcher(*[sometimes_fail] * lanes, most=5, timeout=0.002)
    outcomes: list[str] = []

    def ask_on(number: int) -> None:
        for turn in range(100):
            try:
                answer = asked.infer(image(number), is_idle=turn % 7 == 0)
            except InternalServerError:
                outcomes.append("failed")
            else:
                outcomes.append("right" if answer == [number] else "wrong")
            if turn % 10 == number % 10:
                time.sleep(0.003)

    with ThreadPoolExecutor(16) as threads:
        for future in [threads.submit(ask_on, number) for number in range(16)]:
            future.result()
    asked.close()

    assert len(outcomes) == 1600
    assert set(outcomes) == {"right", "failed"}
