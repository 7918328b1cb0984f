"""A loaded artifact: compiled, shared by threads, verified with golden answers."""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from container.classifier import machine
from container.classifier.artifact import Artifact
from container.classifier.errors import ArtifactError
from container.serving.model import precision
from container.serving.model.engine import Engine
from container.serving.model.outcome import Probabilities
from container.serving.model.precision import variants
from container.serving.model.predictor import Predictor


def test_predictions_are_equal_for_one_thread_and_for_many(artifact: Path) -> None:
    predictor = Predictor.load(artifact, streams=2, latency_threads=2)
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)

    def predict_all(*, is_idle: bool) -> Probabilities:
        return np.stack([predictor.predict(image, is_idle=is_idle) for image in images])

    with ThreadPoolExecutor(8) as threads:
        concurrent = [threads.submit(predict_all, is_idle=False) for _ in range(8)]

    expected = predict_all(is_idle=False)
    assert len(np.unique(expected, axis=0)) == len(images)
    assert all(np.array_equal(answers.result(), expected) for answers in concurrent)
    assert np.allclose(predict_all(is_idle=True), expected, atol=1e-6)


def test_network_with_other_classes_than_the_manifest_is_rejected(artifact: Path) -> None:
    onnx_model = Artifact.read(artifact).onnx_model

    with pytest.raises(ArtifactError, match=r"must turn u8 into \[1,4\]"):
        Engine(onnx_model, image_size=32, classes=4, precision="float32", streams=1)


@pytest.mark.parametrize(
    ("flags", "wanted", "precisions"),
    [
        ("fpu avx512_bf16", "", ["bfloat16", "float32"]),
        ("fpu avx512f", "", ["float32"]),
        ("fpu avx512_bf16", "float32", ["float32"]),
        ("fpu avx512f", "bfloat16", ["bfloat16", "float32"]),
        # The artifact has no int8 network.
        ("fpu avx512_bf16", "int8", ["float32"]),
    ],
)
def test_processor_and_setting_choose_the_precision(
    artifact: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: str,
    wanted: str,
    precisions: list[str],
) -> None:
    monkeypatch.setattr(machine, "has_bfloat16_instructions", lambda: "avx512_bf16" in flags)
    monkeypatch.setattr(machine, "has_int8_instructions", lambda: True)

    assert [each.precision for each in variants(Artifact.read(artifact), wanted)] == precisions


def test_float32_is_served_if_bfloat16_fails_the_golden_answers(
    artifact: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setitem(precision.TOLERANCES, "bfloat16", -1.0)

    predictor = Predictor.load(artifact, streams=1, precision="bfloat16")

    assert "bfloat16 is not served: golden answer 0 differs from training's" in caplog.text
    assert "precision=float32" in caplog.messages
    image = np.zeros((32, 32, 3), np.uint8)
    expected = Predictor.load(artifact, streams=1, precision="float32").predict(image, is_idle=True)
    assert np.array_equal(predictor.predict(image, is_idle=True), expected)


def test_file_that_is_not_a_network_is_rejected(tmp_path: Path) -> None:
    onnx_model = tmp_path / "model.onnx"
    onnx_model.write_bytes(b"not a network")

    with pytest.raises(ArtifactError, match=r"model\.onnx cannot be compiled"):
        Engine(onnx_model, image_size=32, classes=2, precision="float32", streams=1)


def test_artifact_without_golden_answers_is_rejected(artifact: Path) -> None:
    predictor = Predictor.load(artifact, streams=1)

    with pytest.raises(ArtifactError, match="no golden answer"):
        predictor.check((), 1)
