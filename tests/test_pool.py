"""Images' turns."""

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from werkzeug.exceptions import ServiceUnavailable

from container.classifier.preprocessing import Pixels, Preprocessing
from container.serving.model import pool
from container.serving.model.outcome import Probabilities
from container.serving.model.pool import Pool
from container.serving.model.predictor import Predictor

ANSWER = np.array([0.25, 0.75], np.float32)
NO_PIXELS = np.zeros((32, 32, 3), np.uint8)


def predictor(note: Callable[[bool], None]) -> Predictor:
    def infer(image: Pixels, *, is_idle: bool) -> Probabilities:
        del image
        note(is_idle)
        return ANSWER

    return Predictor(
        class_names=("a", "b"), preprocessing=Preprocessing(image_size=32), infer=infer
    )


def ask(images: Pool, asked: Predictor) -> None:
    images.predict(
        asked,
        [lambda _: NO_PIXELS],
        queue_timeout_seconds=10,
        seconds=10,
        has_disconnected=lambda: False,
    )


def test_requests_one_after_another_are_each_alone() -> None:
    is_idle: list[bool] = []
    images = Pool(2)

    for _ in range(5):
        ask(images, predictor(is_idle.append))

    assert is_idle == [True] * 5


def test_after_company_an_image_is_alone_only_when_it_has_been_quiet_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "QUIET_SECONDS", 0.3)
    together = threading.Barrier(2)
    is_idle: list[bool] = []
    images = Pool(2)

    def meet(is_alone: bool) -> None:  # noqa: FBT001 - what `predictor` calls
        is_idle.append(is_alone)
        together.wait(10)

    threads = [threading.Thread(target=ask, args=(images, predictor(meet))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ask(images, predictor(is_idle.append))
    time.sleep(0.4)
    ask(images, predictor(is_idle.append))

    assert is_idle[1:] == [False, False, True]


def test_a_request_whose_images_take_too_long_ends_before_its_last_one() -> None:
    decoded: list[int] = []

    def slow(_: Preprocessing) -> Pixels:
        decoded.append(1)
        time.sleep(0.1)
        return NO_PIXELS

    with pytest.raises(ServiceUnavailable, match="take too long"):
        Pool(1).predict(
            predictor(lambda _: None),
            [slow] * 50,
            queue_timeout_seconds=10,
            seconds=0.3,
            has_disconnected=lambda: False,
        )

    assert len(decoded) < 50
