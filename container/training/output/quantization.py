"""Quantization to int8 at the end of a job.

NNCF quantizes the ONNX file, and ONNX Runtime, which NNCF needs anyway, evaluates the result.
OpenVINO, which serves it, would add 180 MB to the container image and has the same predictions
(benchmarks/README.md). The server compares them again, with the golden answers.
"""

import dataclasses
import logging
import math
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from container.classifier import artifact
from container.classifier.artifact import Artifact
from container.classifier.checked_files import Json
from container.classifier.errors import ArtifactError
from container.classifier.manifest import FLOAT32, INT8, Manifest
from container.classifier.preprocessing import Pixels, preprocess
from container.training.data.images import ImageSet
from container.training.output.comparison import Comparison, losses_of, require_enough_images
from container.training.output.onnx_network import NotQuantizedError, OnnxNetwork
from container.training.progress_bar import ProgressBar
from container.training.sagemaker.stop import Stop, Stopped, TimeLimit

# Validation images that are compared, few enough for seconds.
COMPARED_IMAGES = 4000

BATCH_SIZE = 16

# A quantization that takes longer is not worth the cost of the instance.
LIMIT_SECONDS = 300
POLL_SECONDS = 0.1

# The folder that holds the `container` package: the program is started with `python -m`.
ROOT = Path(__file__).resolve().parents[3]

# For these NNCF recognizes attention and keeps the parts in float32 that int8 would damage.
TRANSFORMERS = ("vit_", "swin_", "maxvit_")

# Key of the result in the manifest's metrics.
METRICS = "quantization"

NOT_WANTED = "quantize=none"
NOT_TRIED = "the job ended before there was an int8 network"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class QuantizationSettings:
    """One way to quantize a network."""

    calibration_images: int
    """Number of training images that calibrate the activations' scales, if there are so many."""

    preset: str
    """NNCF's preset: `performance` has symmetric scales, `mixed` asymmetric ones of activations."""

    float_layers: int
    """Number of layers at the end of the network that remain in float32."""

    rounding: str
    """Of the weights of convolutions: `diffused` (`quantizer.diffuse`), or `nearest`."""


# The first makes the fastest network. The others follow if its accuracy drops too much.
QUANTIZATION_SETTINGS = (
    QuantizationSettings(300, "performance", 0, "diffused"),
    QuantizationSettings(300, "mixed", 0, "nearest"),
    QuantizationSettings(300, "mixed", 3, "diffused"),
)


@dataclass(frozen=True, slots=True)
class Attempt:
    """Settings, and the comparison of their int8 network with float32."""

    settings: QuantizationSettings
    comparison: Comparison


def verdict(precision: str, reason: str, attempt: Attempt | None = None) -> Json:
    """Return the manifest's entry on the precision, with the numbers of the best attempt."""
    kinds = (QuantizationSettings, Comparison)
    names = [field.name for kind in kinds for field in dataclasses.fields(kind)]
    numbers = dict.fromkeys(names)
    if attempt:
        numbers = dataclasses.asdict(attempt.settings) | dataclasses.asdict(attempt.comparison)
    return {"precision": precision, "reason": reason, **numbers}


def served(entry: Json) -> str:
    """Return in a sentence what the server uses, of the manifest's entry on the precision."""
    if not isinstance(entry, dict) or entry["precision"] != INT8:
        return "served: this network, without int8"
    int8, float32 = (100 * float(str(entry[f"{name}_accuracy"])) for name in (INT8, FLOAT32))
    return (
        f"served: int8 on processors where it is fastest, with an accuracy of {int8:.2f}% on "
        f"{entry['images']} validation images, where float32 has {float32:.2f}%"
    )


def add_int8(
    directory: Path,
    manifest: Manifest,
    *,
    training: ImageSet,
    validation: ImageSet,
    predicted: npt.NDArray[np.int64],
    max_drop: float,
    stop: Stop,
    limit_seconds: float = math.inf,
) -> Manifest:
    """Add an int8 network to an artifact if it is accurate enough; return the new manifest.

    Calibrates on the training images. Compares with `predicted`, the classes (N,) of the validation
    images by the float32 network. If the accuracy may drop by more than `max_drop`, other
    calibrations follow while time remains. After an error or with too few images, float32 remains.
    """
    limit_seconds = min(limit_seconds, LIMIT_SECONDS)
    start, limit = time.monotonic(), TimeLimit(stop, limit_seconds)
    result, best, reasons = None, None, list[str]()
    try:
        require_enough_images(min(COMPARED_IMAGES, len(validation)), max_drop)
        with tempfile.TemporaryDirectory(prefix="int8-") as scratch:
            source = Artifact.read(directory)
            for number, settings in enumerate(QUANTIZATION_SETTINGS):
                # Another one takes as long as those before.
                if number and limit.seconds_left < (time.monotonic() - start) / number:
                    reasons.append("no time was left for another calibration")
                    break
                target = Path(scratch, f"{settings.preset}-{settings.float_layers}.onnx")
                used = _calibrate(source, training, settings, target, limit)
                int8, float32 = OnnxNetwork(target), OnnxNetwork(source.onnx_model)
                comparison = compare(int8, validation, predicted, max_drop, limit, float32=float32)
                attempt = Attempt(used, comparison)
                if comparison.is_accurate:
                    best, reasons = attempt, []
                    accepted = _with_verdict(manifest, INT8, comparison.reason, best)
                    _add(directory, accepted, source, target)
                    result, reasons = accepted, [comparison.reason]
                    break
                # The first of equal attempts is the fastest.
                best = min(filter(None, (best, attempt)), key=lambda a: a.comparison.expected_drop)
                reasons = [best.comparison.reason]
                logger.info("int8=above_limit %s: %s", _described(used), comparison.reason)
    except Stopped:
        cause = _why_ended(stop, limit_seconds)
        reasons.append(f"{cause} before {'another' if best else 'int8'} was evaluated")
    except NotQuantizedError as error:
        reasons.append(str(error))
    except Exception as error:  # noqa: BLE001 - the trained network must not be lost
        reasons.append(f"{type(error).__name__}: {error}")
    if result is None:
        result = _with_verdict(manifest, FLOAT32, "; ".join(reasons), best)
        # On a full disk the reason is in the log only.
        with suppress(OSError, ArtifactError), artifact.extending(directory, result):
            pass
    seconds = time.monotonic() - start
    reason = "; ".join(reasons)
    logger.info("precision=%s quantization_seconds=%.1f: %s", result.precision, seconds, reason)
    return result


def _why_ended(stop: Stop, limit_seconds: float) -> str:
    if stop.requested:
        return "the job was stopped"
    if limit_seconds == LIMIT_SECONDS:
        return f"{LIMIT_SECONDS} seconds passed"
    return "no time was left in max_minutes"


def _calibrate(
    source: Artifact, training: ImageSet, settings: QuantizationSettings, target: Path, stop: Stop
) -> QuantizationSettings:
    """Quantize the artifact's network; return the settings with the number of used images."""
    pixels = training.pixels[calibration_indices(training.labels, settings.calibration_images)]
    used = dataclasses.replace(settings, calibration_images=len(pixels))
    network = source.manifest.network
    quantize(source.onnx_model, pixels, target, network, stop, settings=used)
    return used


def _add(directory: Path, manifest: Manifest, source: Artifact, onnx_model: Path) -> None:
    """Move an int8 network to the artifact, with its probabilities of the golden images."""
    images = [answer.data for answer in source.golden_answers]
    golden = np.stack([preprocess(data, manifest.preprocessing) for data in images])
    probabilities = OnnxNetwork(onnx_model).predict(golden)
    with artifact.extending(directory, manifest) as partial:
        shutil.move(onnx_model, partial / artifact.INT8_MODEL)
        artifact.write_int8_answers(partial, probabilities.tolist())


def calibration_indices(labels: npt.NDArray[np.int64], images: int) -> npt.NDArray[np.int64]:
    """Return the indices of the calibration images, with the classes in proportion."""
    count = min(images, len(labels))
    spread = np.linspace(0, len(labels) - 1, count).astype(int)
    indices: npt.NDArray[np.int64] = np.argsort(labels, kind="stable")[spread]
    return indices


def quantize(
    onnx_model: Path,
    pixels: Pixels,
    target: Path,
    network: str,
    stop: Stop,
    *,
    settings: QuantizationSettings = QUANTIZATION_SETTINGS[0],
) -> None:
    """Quantize an ONNX file to int8, calibrated on uint8 pixels (N, H, W, 3).

    Raises:
        Stopped: a stop was requested.
        NotQuantizedError: NNCF failed.
    """
    stored, log = target.with_name("pixels.npy"), target.with_name("log")
    np.save(stored, pixels)
    paths = (str(path.resolve()) for path in (onnx_model, stored, target))
    command = [sys.executable, "-m", "container.training.output.quantizer", *paths]
    command += [f"--preset={settings.preset}", f"--float-layers={settings.float_layers}"]
    command += ["--diffused"] * (settings.rounding == "diffused")
    command += ["--transformer"] * network.startswith(TRANSFORMERS)
    command += [f"--threads={torch.get_num_threads()}"]
    logger.info("quantizing=int8 %s", _described(settings))
    # The log has progress bars for terminals; only the last line of a failure matters.
    with (
        log.open("wb") as file,
        subprocess.Popen(command, stdout=file, stderr=file, cwd=ROOT) as process,
    ):
        try:
            while process.poll() is None:
                stop.check()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(POLL_SECONDS)
        finally:
            process.kill()
    if process.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise NotQuantizedError(
            f"NNCF exited with {process.returncode}: {lines[-1] if lines else 'no output'}"
        )


def compare(
    int8: OnnxNetwork,
    validation: ImageSet,
    predicted: npt.NDArray[np.int64],
    max_drop: float,
    stop: Stop,
    *,
    float32: OnnxNetwork,
) -> Comparison:
    """Compare an int8 network with the float32 network's predictions of validation images."""
    count = min(COMPARED_IMAGES, len(validation))
    indices = np.linspace(0, len(validation) - 1, count).astype(int)
    classes, losses = np.empty(count, np.int64), np.zeros(count)
    with ProgressBar("int8", count) as bar:
        for start in range(0, count, BATCH_SIZE):
            stop.check()
            part = slice(start, start + BATCH_SIZE)
            pixels, before = validation.pixels[indices[part]], predicted[indices[part]]
            classes[part] = int8.predict(pixels).argmax(axis=1)
            # The probabilities of the float32 network matter only where the class changes.
            if (changed := np.flatnonzero(classes[part] != before)).size:
                probabilities = float32.predict(pixels[changed])
                losses[start + changed] = losses_of(
                    probabilities, before[changed], classes[part][changed]
                )
            bar.update(len(pixels))
    return Comparison.of(validation.labels[indices], predicted[indices], classes, losses, max_drop)


def _described(settings: QuantizationSettings) -> str:
    return " ".join(f"{key}={value}" for key, value in dataclasses.asdict(settings).items())


def _with_verdict(
    manifest: Manifest, precision: str, reason: str, attempt: Attempt | None
) -> Manifest:
    metrics = {**manifest.metrics, METRICS: verdict(precision, reason, attempt)}
    return dataclasses.replace(manifest, precision=precision, metrics=metrics)
