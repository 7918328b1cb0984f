"""Quantization to int8 at the end of a job, its comparison with float32, and serving."""

import dataclasses
import errno
import json
import logging
import math
import os
import shutil
import signal
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torchvision.models import VisionTransformer

from container.classifier import machine
from container.classifier.artifact import INT8_ANSWERS, INT8_MODEL, Artifact
from container.classifier.checked_files import sha256_of
from container.classifier.manifest import FLOAT32, INT8, MANIFEST, Manifest
from container.classifier.preprocessing import Pixels, preprocess
from container.serving.model.outcome import Probabilities
from container.serving.model.precision import TOLERANCES, variants
from container.serving.model.predictor import Predictor
from container.training.data.images import ImageSet
from container.training.output import quantization
from container.training.output.comparison import Comparison
from container.training.output.onnx_network import OnnxNetwork
from container.training.output.quantization import (
    METRICS,
    QUANTIZATION_SETTINGS,
    add_int8,
    calibration_indices,
    compare,
)
from container.training.output.rounding import diffuse
from container.training.sagemaker.stop import Stop, StopRequest, TimeLimit
from tests.artifacts import PixelsToProbabilities, export, random_pixels
from tests.opt_ml import (
    HYPERPARAMETERS,
    configure,
    make_job,
    train_here,
    training,
    wait_for,
    write_images,
)
from tests.served import answers

LEARNING = {"image_size": "32", "epochs": "4", "quantize": "auto"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the /opt/ml of a job of the real program, with the default margin."""
    base_dir = tmp_path_factory.mktemp("finished")
    write_images(base_dir / "input" / "data" / "training", per_class=30)
    write_images(base_dir / "input" / "data" / "validation", per_class=20, first=100)
    configure(base_dir, HYPERPARAMETERS | LEARNING, "training", "validation")
    assert train_here(base_dir, "train") == 0
    return base_dir


@pytest.fixture
def model(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of the artifact that a test may change."""
    return Path(shutil.copytree(finished / "model", tmp_path / "model"))


@pytest.fixture
def float32_model(artifact: Path, tmp_path: Path) -> Path:
    """Return an artifact without an int8 network, to which a test may add one."""
    return Path(shutil.copytree(artifact, tmp_path / "float32"))


def quantization_of(manifest: Manifest) -> dict[str, object]:
    found = manifest.metrics[METRICS]
    assert isinstance(found, dict)
    return dict(found)


def golden(artifact: Artifact) -> Pixels:
    settings = artifact.manifest.preprocessing
    return np.stack([preprocess(answer.data, settings) for answer in artifact.golden_answers])


def predict(predictor: Predictor, pixels: Pixels) -> Probabilities:
    return np.stack([predictor.predict(image, is_idle=False) for image in pixels])


def some_pixels(count: int) -> Pixels:
    return np.stack([random_pixels(32, 32, seed) for seed in range(count)])


def try_int8(
    directory: Path,
    *,
    wrong: int = 0,
    max_drop: float = 0.005,
    stop: Stop | None = None,
    limit_seconds: float = math.inf,
) -> Manifest:
    """Add int8 to an artifact: float32 is correct on 20 images, int8 wrong on `wrong` of them."""
    artifact = Artifact.read(directory)
    pixels = some_pixels(100)
    probabilities = answers(artifact.onnx_model, pixels)
    # Rounding does not change the class of confident predictions.
    confident = np.argsort(-probabilities.max(axis=1))[:20]
    predicted = probabilities[confident].argmax(axis=1)
    predicted[:wrong] = (predicted[:wrong] + 1) % 3
    images = ImageSet(pixels[confident], predicted, (), "0" * 64)
    return add_int8(
        directory,
        artifact.manifest,
        training=images,
        validation=images,
        predicted=predicted,
        max_drop=max_drop,
        stop=stop or StopRequest(),
        limit_seconds=limit_seconds,
    )


def test_manifest_metrics_and_report_have_the_same_verdict(finished: Path) -> None:
    manifest = Artifact.read(finished / "model").manifest
    found = quantization_of(manifest)

    assert manifest.precision == found["precision"] == INT8
    assert (found["calibration_images"], found["images"]) == (90, 60)
    assert found["float32_accuracy"] == manifest.metrics["val_accuracy"]
    reports = finished / "output" / "data"
    assert json.loads((reports / "metrics.json").read_text())[METRICS] == found
    assert str(found["reason"]) in (reports / "report.html").read_text().replace("&#39;", "'")


def test_accuracies_are_those_in_openvino(finished: Path) -> None:
    artifact = Artifact.read(finished / "model")
    assert artifact.int8 is not None
    found = quantization_of(artifact.manifest)
    paths = sorted((finished / "input" / "data" / "validation").rglob("*.png"))
    settings = artifact.manifest.preprocessing
    pixels = np.stack([preprocess(path.read_bytes(), settings) for path in paths])
    labels = [artifact.manifest.class_names.index(path.parent.name) for path in paths]

    float32 = answers(artifact.onnx_model, pixels)
    int8 = answers(artifact.int8.onnx_model, pixels)

    assert 0 < np.abs(int8 - float32).max() < 0.2
    predicted = int8.argmax(axis=1)
    # The runtimes may differ in one of 60 images, close to the border of two classes.
    assert np.mean(predicted == labels) == pytest.approx(found["int8_accuracy"], abs=1.1 / 60)
    assert np.mean(predicted == float32.argmax(axis=1)) == pytest.approx(
        found["agreement"], abs=1.1 / 60
    )


def test_int8_is_served_and_reproduces_its_golden_answers(
    finished: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(machine, "has_int8_instructions", lambda: True)
    artifact = Artifact.read(finished / "model")
    assert artifact.int8 is not None

    with caplog.at_level(logging.INFO):
        predictor = Predictor.load(finished / "model", streams=1)

    assert "precision=int8" in caplog.text
    found = predict(predictor, golden(artifact))
    expected = np.array([answer.probabilities for answer in artifact.int8.golden_answers])
    float32 = np.array([answer.probabilities for answer in artifact.golden_answers])
    assert np.abs(found - expected).max() <= TOLERANCES[INT8]
    # Closer to its own golden answers than to float32's.
    assert np.abs(found - expected).mean() < np.abs(found - float32).mean()


@pytest.mark.parametrize(
    ("wanted", "has_int8", "precisions"),
    [
        ("", True, [INT8, "bfloat16", FLOAT32]),
        ("", False, ["bfloat16", FLOAT32]),
        (INT8, False, [INT8, FLOAT32]),
        ("bfloat16", True, ["bfloat16", FLOAT32]),
        (FLOAT32, True, [FLOAT32]),
    ],
)
def test_processor_and_setting_choose_the_precision(
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    wanted: str,
    *,
    has_int8: bool,
    precisions: list[str],
) -> None:
    monkeypatch.setattr(machine, "has_int8_instructions", lambda: has_int8)
    monkeypatch.setattr(machine, "has_bfloat16_instructions", lambda: True)

    found = variants(Artifact.read(finished / "model"), wanted)

    assert [variant.precision for variant in found] == precisions


def test_processor_without_int8_instructions_serves_float32(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "has_int8_instructions", lambda: False)
    monkeypatch.setattr(machine, "has_bfloat16_instructions", lambda: False)
    artifact = Artifact.read(finished / "model")

    predictor = Predictor.load(finished / "model", streams=1)

    expected = np.array([answer.probabilities for answer in artifact.golden_answers])
    assert np.abs(predict(predictor, golden(artifact)) - expected).max() < TOLERANCES[FLOAT32]


def test_float32_is_served_if_int8_differs_from_training(
    model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(machine, "has_int8_instructions", lambda: True)
    monkeypatch.setattr(machine, "has_bfloat16_instructions", lambda: False)
    rows = json.loads((model / INT8_ANSWERS).read_text())
    (model / INT8_ANSWERS).write_text(json.dumps([row[::-1] for row in rows]))
    document = json.loads((model / MANIFEST).read_text())
    document["files"][INT8_ANSWERS] = sha256_of(model / INT8_ANSWERS)
    (model / MANIFEST).write_text(json.dumps(document))

    with caplog.at_level(logging.INFO):
        predictor = Predictor.load(model, streams=1)

    assert "int8 is not served: golden answer 0 differs from training's" in caplog.text
    artifact = Artifact.read(model)
    expected = np.array([answer.probabilities for answer in artifact.golden_answers])
    assert np.abs(predict(predictor, golden(artifact)) - expected).max() < TOLERANCES[FLOAT32]


class FixedNetwork:
    """Predicts class 1 for the first images and class 0 for the others."""

    def __init__(self, ones: int) -> None:
        self.ones, self.seen = ones, 0

    def predict(self, pixels: Pixels) -> Probabilities:
        indices = self.seen + np.arange(len(pixels))
        self.seen += len(pixels)
        is_one = indices < self.ones
        return np.stack([~is_one, is_one], axis=1).astype(np.float32)


class UnsureNetwork:
    """Finds class 0 hardly more probable than class 1."""

    def predict(self, pixels: Pixels) -> Probabilities:
        return np.tile(np.array([0.51, 0.49], np.float32), (len(pixels), 1))


# 10 of 2,000 images are allowed; 15 lost images have a probability of 0.065 then, 14 of 0.115.
@pytest.mark.parametrize(("lost", "is_enough"), [(0, True), (14, True), (15, False), (-5, True)])
def test_drop_that_is_shown_to_be_larger_than_the_margin_is_rejected(
    lost: int, *, is_enough: bool
) -> None:
    labels = np.zeros(2000, np.int64)
    float32 = labels.copy()
    float32[:100] = 1
    images = ImageSet(np.zeros((2000, 1, 1, 3), np.uint8), labels, (), "")
    network = cast("OnnxNetwork", FixedNetwork(100 + lost))

    unsure = cast("OnnxNetwork", UnsureNetwork())

    found = compare(network, images, float32, 0.005, StopRequest(), float32=unsure)

    assert found.float32_accuracy == 0.95
    assert found.agreement == pytest.approx(1 - abs(lost) / 2000)
    assert (found.lost, found.gained) == (max(lost, 0), max(-lost, 0))
    assert found.expected_drop == pytest.approx(max(lost, 0) * 0.02 / 2000)
    assert found.is_accurate is is_enough


def test_larger_drop_than_the_margin_is_rejected(
    float32_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        manifest = try_int8(float32_model, wrong=5)

    artifact = Artifact.read(float32_model)
    assert artifact.manifest == manifest
    assert artifact.int8 is None
    assert not (float32_model / INT8_MODEL).exists()
    found = quantization_of(manifest)
    assert (found["float32_accuracy"], found["int8_accuracy"]) == (1, 0.75)
    assert (found["lost"], found["gained"]) == (5, 0)
    assert "which shows a larger drop than allowed" in str(found["reason"])
    # Every calibration was tried, the last one with layers in float32.
    tried = caplog.text.count("int8=above_limit calibration_images=20 preset=")
    assert tried == len(QUANTIZATION_SETTINGS)
    assert "preset=mixed float_layers=3" in caplog.text
    # Of equal ones the first, which is the fastest.
    assert (found["preset"], found["float_layers"]) == ("performance", 0)


@pytest.mark.parametrize(
    ("max_drop", "reason"),
    [
        (0.004, "20 validation images are too few: max_accuracy_drop=0.004 needs 25"),
        (0, "max_accuracy_drop=0 rejects int8 always"),
    ],
)
def test_int8_that_cannot_be_accepted_is_not_tried(
    float32_model: Path, max_drop: float, reason: str
) -> None:
    found = quantization_of(try_int8(float32_model, max_drop=max_drop))

    assert (found["reason"], found["preset"]) == (reason, None)


def test_no_calibration_begins_that_would_exceed_the_time_limit(
    float32_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TimeLimit, "seconds_left", 1e-6)

    manifest = try_int8(float32_model, wrong=5)

    found = quantization_of(manifest)
    assert (found["lost"], found["float_layers"]) == (5, 0)
    assert str(found["reason"]).endswith("; no time was left for another calibration")


def test_stop_after_a_rejected_calibration_keeps_its_comparison(
    float32_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class StopOnceRejected(Stop):
        @property
        def requested(self) -> bool:
            return "int8=above_limit" in caplog.text

    with caplog.at_level(logging.INFO):
        manifest = try_int8(float32_model, wrong=5, stop=StopOnceRejected())

    found = quantization_of(manifest)
    assert manifest.precision == FLOAT32
    assert (found["lost"], found["float_layers"]) == (5, 0)
    assert str(found["reason"]).endswith("; the job was stopped before another was evaluated")


# Probabilities that the last of 20 images loses with the three calibrations.
@pytest.mark.parametrize(
    ("losses", "chosen", "best"),
    [((0.0,), 0, 0), ((0.4, 0.0), 1, 1), ((0.4, 0.3, 0.0), 2, 2), ((0.4, 0.2, 0.3), None, 1)],
)
def test_first_calibration_with_a_small_expected_drop_is_added(
    float32_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    losses: tuple[float, ...],
    chosen: int | None,
    best: int,
) -> None:
    numbers = iter(losses)

    def compare(*_: object, **__: object) -> Comparison:
        labels = np.zeros(20, np.int64)
        lost = np.zeros(20)
        lost[-1] = next(numbers)
        return Comparison.of(labels, labels, labels, lost, 0.005)

    def quantize(source: Path, _: object, target: Path, *__: object, **___: object) -> None:
        shutil.copy(source, target)

    monkeypatch.setattr(quantization, "compare", compare)
    monkeypatch.setattr(quantization, "quantize", quantize)

    manifest = try_int8(float32_model)

    found = quantization_of(manifest)
    assert manifest.precision == (FLOAT32 if chosen is None else INT8)
    assert (Artifact.read(float32_model).int8 is None) == (chosen is None)
    described = QUANTIZATION_SETTINGS[best]
    assert (found["preset"], found["float_layers"]) == (described.preset, described.float_layers)


def test_wider_margin_accepts_the_drop(float32_model: Path) -> None:
    manifest = try_int8(float32_model, wrong=5, max_drop=0.25)

    assert manifest.precision == INT8
    assert Artifact.read(float32_model).int8 is not None


def test_stop_request_ends_the_quantizer(float32_model: Path) -> None:
    children = []

    class StopOnceQuantizing(Stop):
        @property
        def requested(self) -> bool:
            children.extend(running_quantizers())
            return bool(children)

    manifest = try_int8(float32_model, stop=StopOnceQuantizing())

    assert children
    assert not running_quantizers()
    assert Artifact.read(float32_model).manifest == manifest
    assert manifest.precision == FLOAT32
    assert quantization_of(manifest)["reason"] == "the job was stopped before int8 was evaluated"


def running_quantizers() -> list[str]:
    """Return the process ids of this process's quantizers."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            is_child = f"PPid:\t{os.getpid()}\n" in (path / "status").read_text()
            if (
                is_child
                and b"container.training.output.quantizer" in (path / "cmdline").read_bytes()
            ):
                found.append(path.name)
        except OSError:
            # The process has ended.
            continue
    return found


def test_quantization_has_a_time_limit(
    float32_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization, "LIMIT_SECONDS", 0)

    manifest = try_int8(float32_model)

    assert Artifact.read(float32_model).manifest == manifest
    assert quantization_of(manifest)["reason"] == "0 seconds passed before int8 was evaluated"
    monkeypatch.undo()
    limited = quantization_of(try_int8(float32_model, limit_seconds=0))
    assert limited["reason"] == "no time was left in max_minutes before int8 was evaluated"


def test_failure_of_nncf_leaves_float32(float32_model: Path) -> None:
    artifact = Artifact.read(float32_model)
    images = ImageSet(some_pixels(4), np.zeros(4, np.int64), (), "0" * 64)
    wrong_size = dataclasses.replace(images, pixels=images.pixels[:, :16])

    manifest = add_int8(
        float32_model,
        artifact.manifest,
        training=wrong_size,
        validation=images,
        predicted=images.labels,
        max_drop=1,
        stop=StopRequest(),
    )

    assert Artifact.read(float32_model).manifest == manifest
    assert manifest.precision == FLOAT32
    assert str(quantization_of(manifest)["reason"]).startswith("NNCF exited with 1: ")


def test_full_disk_leaves_float32(float32_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = Artifact.read(float32_model)
    monkeypatch.setattr(shutil, "move", fail)

    manifest = try_int8(float32_model, max_drop=1)

    assert Artifact.read(float32_model) == dataclasses.replace(before, manifest=manifest)
    assert quantization_of(manifest)["reason"] == "OSError: [Errno 28] No space left on device"


def test_diffused_rounding_keeps_sums_that_nearest_rounding_loses() -> None:
    # Fine-tuning has changed all weights by less than half a step of 1 / 127.
    weights = np.full((2, 8, 3, 3), 0.003, np.float32)
    weights[:, 0, 0, 0] = (1, 2)

    found = diffuse(weights)

    steps = found / (np.array([1, 2]) / 127).reshape(2, 1, 1, 1)
    assert np.allclose(steps, np.round(steps), atol=1e-4)
    assert np.abs(steps).max() == pytest.approx(127)
    # Of each kernel within one step, not only of all weights.
    assert np.abs((found - weights).sum(axis=(2, 3))).max() <= 2 / 127 + 1e-6
    assert np.abs((found - weights).sum(axis=(1, 2, 3))).max() <= 1 / 127 + 1e-6


@pytest.mark.parametrize("weights", [np.zeros((2, 3, 1, 1)), np.array([[127.0, -127, 5]])])
def test_diffused_rounding_keeps_values_that_int8_has(weights: npt.NDArray[np.float64]) -> None:
    assert np.allclose(diffuse(weights.astype(np.float32)), weights)


def test_vision_transformer_is_quantized(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=3)
    # Wide weights, so that different images have different probabilities.
    torch.nn.init.normal_(network.conv_proj.weight)
    torch.nn.init.normal_(network.heads[0].weight, std=0.1)
    export(PixelsToProbabilities(network).eval(), tmp_path / "model.onnx", 32)
    pixels = some_pixels(20)
    target = tmp_path / INT8_MODEL

    quantization.quantize(tmp_path / "model.onnx", pixels, target, "vit_b_16", StopRequest())

    expected = answers(tmp_path / "model.onnx", pixels)
    assert np.ptp(expected, axis=0).max() > 0.05
    assert 0 < np.abs(OnnxNetwork(target).predict(pixels) - expected).max() < 0.03


def test_calibration_images_have_the_classes_in_proportion() -> None:
    labels = np.array([0, 1] * 400 + [2] * 100)

    indices = calibration_indices(labels, 300)

    assert len(set(indices.tolist())) == 300
    assert np.bincount(labels[indices]).tolist() == pytest.approx([133, 133, 33], abs=1)
    assert sorted(calibration_indices(labels[:5], 300).tolist()) == [0, 1, 2, 3, 4]


def test_stop_signal_while_quantizing_leaves_float32_and_reports(
    tmp_path: Path,
) -> None:
    job = make_job(tmp_path, quantize="auto", max_accuracy_drop="1")

    with training(job) as process:
        wait_for(process, "quantizing=int8")
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate()

    assert process.returncode == 0, output
    manifest = Artifact.read(job / "model").manifest
    assert manifest.precision == FLOAT32
    assert quantization_of(manifest)["reason"] == "the job was stopped before int8 was evaluated"
    assert "the job was stopped before int8" in (job / "output/data/report.html").read_text()


def test_quantize_none_does_not_quantize(tmp_path: Path) -> None:
    job = make_job(tmp_path, quantize="none")

    assert train_here(job, "train") == 0

    artifact = Artifact.read(job / "model")
    assert artifact.int8 is None
    assert quantization_of(artifact.manifest)["reason"] == "quantize=none"
