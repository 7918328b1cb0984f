"""Quantization to int8 at the end of a job.

NNCF quantizes the ONNX file, and ONNX Runtime, which NNCF needs anyway, evaluates the result.
OpenVINO, which serves it, would add 180 MB to the container image and has the same predictions
(benchmarks/README.md). The server compares them again, with the golden answers.
"""

import dataclasses
import logging
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

from container.classifier import artifact, machine
from container.classifier.artifact import Artifact
from container.classifier.checked_files import Json
from container.classifier.errors import ArtifactError
from container.classifier.manifest import FLOAT32, INT8, Manifest
from container.classifier.preprocessing import Pixels, preprocess
from container.training.data.images import ImageSet
from container.training.progress_bar import ProgressBar
from container.training.sagemaker.stop import Stop, Stopped, TimeLimit

CALIBRATION_IMAGES = 300

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


class NotQuantizedError(Exception):
    """The network cannot be quantized, for the reason in the message."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """The int8 network compared with the float32 network."""

    calibration_images: int
    """Number of training images that calibrated the activations' scales."""

    images: int
    """Number of validation images that both networks classified."""

    float32_accuracy: float
    int8_accuracy: float

    agreement: float
    """Fraction of the images with the same prediction of both networks."""

    def is_accurate(self, max_drop: float) -> bool:
        """Return whether the accuracy drops by at most `max_drop`."""
        # Both are fractions of the same images: a difference of less than one image is rounding.
        return self.float32_accuracy - self.int8_accuracy <= max_drop + 1e-9

    def reason(self, max_drop: float) -> str:
        """Return a sentence on why int8 is served or not."""
        return (
            f"on {self.images} validation images the accuracy of int8 is "
            f"{100 * self.int8_accuracy:.2f} % and of float32 {100 * self.float32_accuracy:.2f} %, "
            f"which max_accuracy_drop={max_drop:g} "
            f"{'allows' if self.is_accurate(max_drop) else 'forbids'}; their predictions agree on "
            f"{100 * self.agreement:.2f} %"
        )


class Int8Network:
    """An int8 network in ONNX Runtime."""

    def __init__(self, onnx_model: Path) -> None:
        """Load the network."""
        # Imported here: if the import fails, float32 is served.
        import onnxruntime  # noqa: PLC0415

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        if not machine.has_int8_instructions():
            # Without them sums of products can overflow. Computed in float32 the results are
            # correct, as they are on processors that serve int8.
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        self.session = onnxruntime.InferenceSession(
            onnx_model, options, providers=["CPUExecutionProvider"]
        )
        self.input = self.session.get_inputs()[0].name

    def predict(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """Return probabilities (N, C) for uint8 pixels (N, H, W, 3).

        Raises:
            NotQuantizedError: the probabilities are not finite.
        """
        probabilities: npt.NDArray[np.float32] = self.session.run(None, {self.input: pixels})[0]
        if not np.isfinite(probabilities).all():
            raise NotQuantizedError("the probabilities of int8 are NaN or infinite")
        return probabilities


def verdict(precision: str, reason: str, comparison: Comparison | None = None) -> Json:
    """Return the manifest's entry on the precision."""
    names = [field.name for field in dataclasses.fields(Comparison)]
    numbers = dataclasses.asdict(comparison) if comparison else dict.fromkeys(names)
    return {"precision": precision, "reason": reason, **numbers}


def add_int8(
    directory: Path,
    manifest: Manifest,
    *,
    training: ImageSet,
    validation: ImageSet,
    predicted: npt.NDArray[np.int64],
    max_drop: float,
    stop: Stop,
) -> Manifest:
    """Add an int8 network to an artifact if it is accurate enough; return the new manifest.

    Calibrates on the training images. Compares with `predicted`, the classes (N,) of the validation
    images by the float32 network: the accuracy may drop by `max_drop`. An error leaves the artifact
    with float32.
    """
    start, comparison, is_int8 = time.monotonic(), None, False
    limit = TimeLimit(stop, LIMIT_SECONDS)
    try:
        with tempfile.TemporaryDirectory(prefix="int8-") as scratch:
            source, onnx_model = Artifact.read(directory), Path(scratch, artifact.INT8_MODEL)
            pixels = training.pixels[calibration_indices(training.labels)]
            quantize(source.onnx_model, pixels, onnx_model, manifest.network, limit)
            network = Int8Network(onnx_model)
            comparison = compare(network, validation, predicted, len(pixels), limit)
            reason = comparison.reason(max_drop)
            if comparison.is_accurate(max_drop):
                images = [answer.data for answer in source.golden_answers]
                golden = np.stack([preprocess(data, manifest.preprocessing) for data in images])
                probabilities = network.predict(golden)
                result = _with_verdict(manifest, INT8, reason, comparison)
                with artifact.extending(directory, result) as partial:
                    shutil.move(onnx_model, partial / artifact.INT8_MODEL)
                    artifact.write_int8_answers(partial, probabilities.tolist())
                is_int8 = True
    except Stopped:
        cause = "the job was stopped" if stop.requested else f"{LIMIT_SECONDS} seconds passed"
        reason = f"{cause} before int8 was evaluated"
    except NotQuantizedError as error:
        reason = str(error)
    except Exception as error:  # noqa: BLE001 - the trained network must not be lost
        reason = f"{type(error).__name__}: {error}"
    if not is_int8:
        result = _with_verdict(manifest, FLOAT32, reason, comparison)
        # On a full disk the reason is in the log only.
        with suppress(OSError, ArtifactError), artifact.extending(directory, result):
            pass
    seconds = time.monotonic() - start
    logger.info("precision=%s quantization_seconds=%.1f: %s", result.precision, seconds, reason)
    return result


def calibration_indices(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the indices of the calibration images, with the classes in proportion."""
    count = min(CALIBRATION_IMAGES, len(labels))
    spread = np.linspace(0, len(labels) - 1, count).astype(int)
    indices: npt.NDArray[np.int64] = np.argsort(labels, kind="stable")[spread]
    return indices


def quantize(onnx_model: Path, pixels: Pixels, target: Path, network: str, stop: Stop) -> None:
    """Quantize an ONNX file to int8, calibrated on uint8 pixels (N, H, W, 3).

    Raises:
        Stopped: a stop was requested.
        NotQuantizedError: NNCF failed.
    """
    stored, log = target.with_name("pixels.npy"), target.with_name("log")
    np.save(stored, pixels)
    paths = [path.resolve() for path in (onnx_model, stored, target)]
    command = [sys.executable, "-m", "container.training.output.quantizer", *map(str, paths)]
    if network.startswith(TRANSFORMERS):
        command.append("--transformer")
    logger.info("quantizing=int8 calibration_images=%d", len(pixels))
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
    network: Int8Network,
    validation: ImageSet,
    predicted: npt.NDArray[np.int64],
    calibration_images: int,
    stop: Stop,
) -> Comparison:
    """Compare an int8 network with the float32 network's predictions of validation images."""
    count = min(COMPARED_IMAGES, len(validation))
    indices = np.linspace(0, len(validation) - 1, count).astype(int)
    batches = []
    with ProgressBar("int8", count) as bar:
        for start in range(0, count, BATCH_SIZE):
            stop.check()
            pixels = validation.pixels[indices[start : start + BATCH_SIZE]]
            batches.append(network.predict(pixels).argmax(axis=1))
            bar.update(len(pixels))
    labels, float32, int8 = validation.labels[indices], predicted[indices], np.concatenate(batches)
    return Comparison(
        calibration_images=calibration_images,
        images=count,
        float32_accuracy=float(np.mean(float32 == labels)),
        int8_accuracy=float(np.mean(int8 == labels)),
        agreement=float(np.mean(int8 == float32)),
    )


def _with_verdict(
    manifest: Manifest, precision: str, reason: str, comparison: Comparison | None
) -> Manifest:
    metrics = {**manifest.metrics, METRICS: verdict(precision, reason, comparison)}
    return dataclasses.replace(manifest, precision=precision, metrics=metrics)
