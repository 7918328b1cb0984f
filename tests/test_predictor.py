"""The network in memory: compiled, shared by threads, compared with training."""

import threading
from pathlib import Path

import numpy as np
import pytest

from classifier.artifact import Artifact
from classifier.errors import ArtifactError
from serving.encoding import Probabilities
from serving.engine import Engine
from serving.predictor import Predictor
from tests.artifacts import CLASS_NAMES


def test_the_engine_answers_alike_alone_in_a_batch_and_from_many_threads(artifact: Path) -> None:
    predictor = Predictor.load(artifact, streams=2)
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    expected = predictor.predict(images)
    answers: list[Probabilities] = []

    threads = [
        threading.Thread(target=lambda: answers.append(predictor.predict(images))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all(np.array_equal(answer, expected) for answer in answers)
    alone = [predictor.predict(image[np.newaxis])[0] for image in images]
    assert np.array_equal(np.stack(alone), expected)


@pytest.mark.parametrize(
    ("size", "classes", "precision", "message"),
    [
        (32, 4, "float32", r"must turn u8 into \[1,4\]"),
        (32, len(CLASS_NAMES), "float8", "precision must be one of"),
    ],
)
def test_another_network_than_the_manifests_is_refused(
    artifact: Path, size: int, classes: int, precision: str, message: str
) -> None:
    onnx_model = Artifact.read(artifact).onnx_model

    with pytest.raises(ArtifactError, match=message):
        Engine(onnx_model, image_size=size, classes=classes, precision=precision, streams=1)


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    onnx_model = tmp_path / "model.onnx"
    onnx_model.write_bytes(b"not a network")

    with pytest.raises(ArtifactError, match=r"model\.onnx cannot be compiled"):
        Engine(onnx_model, image_size=32, classes=2, precision="float32", streams=1)


def test_an_artifact_without_golden_answers_is_refused(artifact: Path) -> None:
    predictor = Predictor.load(artifact, streams=1)

    with pytest.raises(ArtifactError, match="no golden answer"):
        predictor.check(())
