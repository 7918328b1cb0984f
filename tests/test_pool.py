"""The pool that decodes and predicts images."""

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from werkzeug.exceptions import ServiceUnavailable

from container.classifier.preprocessing import Pixels, Preprocessing
from container.serving.model import pool as pool_module
from container.serving.model.outcome import Probabilities
from container.serving.model.pool import Pool
from container.serving.model.predictor import Predictor

PROBABILITIES = np.array([0.25, 0.75], np.float32)
NO_PIXELS = np.zeros((32, 32, 3), np.uint8)


def make_predictor(record: Callable[[bool], None]) -> Predictor:
    def infer(image: Pixels, *, is_idle: bool) -> Probabilities:
        del image
        record(is_idle)
        return PROBABILITIES

    return Predictor(
        class_names=("a", "b"), preprocessing=Preprocessing(image_size=32), infer=infer
    )


def predict_one(pool: Pool, predictor: Predictor) -> None:
    pool.predict(
        predictor,
        [lambda _: NO_PIXELS],
        queue_timeout_seconds=10,
        seconds=10,
        has_disconnected=lambda: False,
    )


def test_sequential_requests_are_predicted_as_idle() -> None:
    is_idle: list[bool] = []
    pool = Pool(2)

    for _ in range(5):
        predict_one(pool, make_predictor(is_idle.append))

    assert is_idle == [True] * 5


def test_image_after_an_overlap_is_idle_only_after_a_quiet_period(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool_module, "QUIET_SECONDS", 0.3)
    barrier = threading.Barrier(2)
    is_idle: list[bool] = []
    pool = Pool(2)

    def meet(is_only: bool) -> None:  # noqa: FBT001 - called by `infer`
        is_idle.append(is_only)
        barrier.wait(10)

    threads = [
        threading.Thread(target=predict_one, args=(pool, make_predictor(meet))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    predict_one(pool, make_predictor(is_idle.append))
    time.sleep(0.4)
    predict_one(pool, make_predictor(is_idle.append))

    assert is_idle[1:] == [False, False, True]


def test_request_that_takes_too_long_ends_before_its_last_image() -> None:
    decoded: list[int] = []

    def slow(_: Preprocessing) -> Pixels:
        decoded.append(1)
        time.sleep(0.1)
        return NO_PIXELS

    with pytest.raises(ServiceUnavailable, match="take too long"):
        Pool(1).predict(
            make_predictor(lambda _: None),
            [slow] * 50,
            queue_timeout_seconds=10,
            seconds=0.3,
            has_disconnected=lambda: False,
        )

    assert len(decoded) < 50
