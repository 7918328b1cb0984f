"""The server measures its precisions and serves the fastest one."""

import errno
import logging
import os
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from container.classifier import machine
from container.classifier.errors import ArtifactError
from container.classifier.preprocessing import Pixels
from container.serving.model import precision as precisions
from container.serving.model import predictor as predictors
from container.serving.model import speed
from container.serving.model.engine import Engine
from container.serving.model.outcome import Probabilities
from container.serving.model.predictor import Predictor
from container.serving.model.speed import Choice, Predict, fastest

ANSWER = np.ones(2, np.float32)


class Clock:
    """Time that passes only in predictions."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


CLOCK = Clock()


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "perf_counter", CLOCK)


def taking(seconds: float) -> Predict:
    def predict(_: Pixels) -> Probabilities:
        CLOCK.now += seconds
        return ANSWER

    return predict


SLOW, FAST = taking(0.02), taking(0.01)


def not_loaded(precision: str) -> Predict:
    raise ArtifactError(f"no {precision}")


class SlowBfloat16(Engine):
    """A processor that has the instructions, and is slow with them."""

    def __init__(self, onnx_model: Path, *, precision: str, **others: object) -> None:
        super().__init__(onnx_model, precision=precision, **others)  # type: ignore[arg-type]
        self.seconds = 0.02 if precision == "bfloat16" else 0.01

    def infer(self, image: Pixels, *, is_idle: bool) -> Probabilities:
        CLOCK.now += self.seconds
        return super().infer(image, is_idle=is_idle)


@pytest.fixture
def slow_bfloat16(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(machine, "has_bfloat16_instructions", lambda: True)
    monkeypatch.setattr(predictors, "Engine", SlowBfloat16)


def test_fastest_precision_is_chosen(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    assert fastest("bfloat16", SLOW, ["float32"], lambda _: FAST, 8) == "float32"
    assert fastest("bfloat16", FAST, ["float32"], lambda _: SLOW, 8) == "bfloat16"

    times = "bfloat16_ms=20.00 float32_ms=10.00"
    assert caplog.messages[0] == f"fastest=float32 {times} measured_in=0.03s"


def test_a_difference_that_is_noise_does_not_change_the_precision() -> None:
    assert fastest("bfloat16", SLOW, ["float32"], lambda _: taking(0.0191), 8) == "bfloat16"


def test_no_further_precision_is_loaded_after_the_time_limit() -> None:
    loaded = []

    def load(precision: str) -> Predict:
        loaded.append(precision)
        return taking(0.11)

    assert fastest("int8", FAST, ["bfloat16", "float32"], load, 8) == "int8"
    assert loaded == ["bfloat16"]


def test_a_precision_that_cannot_be_loaded_is_not_chosen(caplog: pytest.LogCaptureFixture) -> None:
    assert fastest("bfloat16", SLOW, ["float32"], not_loaded, 8) == "bfloat16"
    assert "float32 is not measured: no float32" in caplog.messages


def test_a_precision_is_measured_after_one_that_took_long_to_fail() -> None:
    def load(precision: str) -> Predict:
        if precision == "float32":
            return FAST
        CLOCK.now += 0.3
        raise ArtifactError("no bfloat16")

    assert fastest("int8", SLOW, ["bfloat16", "float32"], load, 8) == "float32"


@pytest.mark.usefixtures("slow_bfloat16")
def test_slow_bfloat16_is_not_served(artifact: Path, caplog: pytest.LogCaptureFixture) -> None:
    predictor = Predictor.load(artifact)

    assert predictor.precision == "float32"
    assert "precision=float32" in caplog.messages
    assert "precision=bfloat16" not in caplog.messages


@pytest.mark.usefixtures("slow_bfloat16")
def test_a_set_precision_is_not_measured(artifact: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert Predictor.load(artifact, precision="bfloat16").precision == "bfloat16"
    assert "fastest=" not in caplog.text


@pytest.mark.usefixtures("slow_bfloat16")
def test_fastest_precision_must_reproduce_the_golden_answers(
    artifact: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(precisions.TOLERANCES, "float32", -1.0)

    assert Predictor.load(artifact).precision == "bfloat16"
    assert "float32 is not served: golden answer 0 differs" in caplog.text


@pytest.mark.usefixtures("slow_bfloat16")
def test_all_worker_processes_serve_the_precision_that_one_has_measured(artifact: Path) -> None:
    with closing(Choice()) as choice:
        child = os.fork()
        if child == 0:
            # As if bfloat16 were faster in this process.
            os._exit(choice.get(lambda: "bfloat16") != "bfloat16")

        assert os.waitpid(child, 0)[1] == 0
        assert Predictor.load(artifact, choice=choice).precision == "bfloat16"


def test_on_a_full_disk_each_process_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", fail)
    with closing(Choice()) as choice:
        assert choice.get(lambda: "int8") == "int8"
        assert choice.get(lambda: "float32") == "float32"
