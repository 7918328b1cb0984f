"""The network in int8: made at the end of a job, and served if it is good enough.

NNCF makes it from the ONNX file, and ONNX Runtime, which NNCF needs for that, judges it. OpenVINO,
which serves it, would be 180 MB more in the image and answers alike (benchmarks/README.md); the
server compares again, with the golden answers.
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
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from container.classifier import artifact, machine
from container.classifier.artifact import Artifact
from container.classifier.artifact_files import Json
from container.classifier.errors import ArtifactError
from container.classifier.manifest import FLOAT32, INT8, Manifest
from container.classifier.preprocessing import Pixels, preprocess
from container.training.data.images import ImageSet
from container.training.sagemaker.stop import Stop, Stopped, TimeLimit

CALIBRATION_IMAGES = 300

# So many of the validation images decide, so that it is a matter of seconds.
JUDGED_IMAGES = 4000

BATCH_SIZE = 16

# Whatever takes longer is not worth what the machine costs meanwhile.
LIMIT_SECONDS = 300

LOOK_SECONDS = 0.1

# The folder that holds the `container` package: the program is started with `python -m`.
PROGRAM = Path(__file__).resolve().parents[3]

# NNCF then knows attention, and leaves alone in it what int8 spoils.
TRANSFORMERS = ("vit_", "swin_", "maxvit_")

# Under which the manifest's metrics say what became of it.
METRICS = "quantization"

NOT_ASKED = "quantize=none"
UNTRIED = "the job ended before there was an int8 network"

logger = logging.getLogger(__name__)


class NotQuantizedError(Exception):
    """There is no int8 network, for the reason that the message says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """How the int8 network does, beside the one that it was made from."""

    calibration_images: int
    """Training images that decided the scales of the activations."""

    images: int
    """Validation images by which both are judged."""

    float32_accuracy: float
    int8_accuracy: float

    agreement: float
    """Share of the images that both give the same class."""

    @classmethod
    def of(
        cls,
        labels: npt.NDArray[np.int64],
        float32: npt.NDArray[np.int64],
        int8: npt.NDArray[np.int64],
        *,
        calibration_images: int,
    ) -> Self:
        """Compare the true classes and those that the networks name, each of shape (N,)."""
        return cls(
            calibration_images=calibration_images,
            images=len(labels),
            float32_accuracy=float(np.mean(float32 == labels)),
            int8_accuracy=float(np.mean(int8 == labels)),
            agreement=float(np.mean(int8 == float32)),
        )

    def suffices(self, max_drop: float) -> bool:
        """Tell whether the accuracy falls by no more than that."""
        # Shares of the same images: what differs by less than one of them is rounding.
        return self.float32_accuracy - self.int8_accuracy <= max_drop + 1e-9

    def reason(self, max_drop: float) -> str:
        """Say why int8 is served, or why not."""
        return (
            f"of {self.images} validation images int8 names "
            f"{100 * self.int8_accuracy:.2f} % correctly and float32 "
            f"{100 * self.float32_accuracy:.2f} %, which max_accuracy_drop={max_drop:g} "
            f"{'allows' if self.suffices(max_drop) else 'forbids'}; they agree on "
            f"{100 * self.agreement:.2f} %"
        )


class Int8Network:
    """An int8 network under ONNX Runtime."""

    def __init__(self, onnx_model: Path) -> None:
        """Load it."""
        # Where it cannot be loaded, float32 is served.
        import onnxruntime  # noqa: PLC0415

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        if not machine.has_int8_instructions():
            # There the sums of products can overflow: computed in float32 they are right, as they
            # are wherever int8 is served.
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        self.session = onnxruntime.InferenceSession(
            onnx_model, options, providers=["CPUExecutionProvider"]
        )
        self.input = self.session.get_inputs()[0].name

    def answer(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """Return probabilities (N, C) for uint8 images (N, H, W, 3).

        Raises:
            NotQuantizedError: they are not finite.
        """
        probabilities: npt.NDArray[np.float32] = self.session.run(None, {self.input: pixels})[0]
        if not np.isfinite(probabilities).all():
            message = "int8 answers with NaN or infinity"
            raise NotQuantizedError(message)
        return probabilities


def verdict(precision: str, reason: str, comparison: Comparison | None = None) -> Json:
    """Return what the manifest says about the precision."""
    names = [field.name for field in dataclasses.fields(Comparison)]
    figures = dataclasses.asdict(comparison) if comparison else dict.fromkeys(names)
    return {"precision": precision, "reason": reason, **figures}


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
    """Add an int8 network to an artifact if it is good enough; return what the manifest then is.

    Whatever goes wrong costs the int8 network alone.

    Args:
        directory: of the artifact.
        manifest: of the artifact.
        training: images to calibrate with.
        validation: images to judge by.
        predicted: of shape (N,), the classes that the artifact's network names them.
        max_drop: by how much the accuracy may fall.
        stop: checked several times a second.
    """
    start, comparison = time.monotonic(), None
    limit = TimeLimit(stop, LIMIT_SECONDS)
    try:
        with tempfile.TemporaryDirectory(prefix="int8-") as scratch:
            source, onnx_model = Artifact.read(directory), Path(scratch, artifact.INT8_MODEL)
            pixels = training.pixels[calibration_places(training.labels)]
            quantize(source.onnx_model, pixels, onnx_model, manifest.network, limit)
            network = Int8Network(onnx_model)
            comparison = compare(network, validation, predicted, len(pixels), limit)
            reason = comparison.reason(max_drop)
            if not comparison.suffices(max_drop):
                raise NotQuantizedError(reason)
            images = [
                preprocess(golden.data, manifest.preprocessing) for golden in source.golden_answers
            ]
            answers = network.answer(np.stack(images))
            result = _saying(manifest, INT8, reason, comparison)
            with artifact.extending(directory, result) as partial:
                shutil.move(onnx_model, partial / artifact.INT8_MODEL)
                artifact.write_int8_answers(partial, answers.tolist())
    except Stopped:
        reason = (
            "the job was stopped before int8 was evaluated"
            if stop.requested
            else f"int8 was not made and evaluated within {LIMIT_SECONDS} seconds"
        )
        result = _keep_float32(directory, manifest, reason, comparison)
    except NotQuantizedError as error:
        reason = str(error)
        result = _keep_float32(directory, manifest, reason, comparison)
    except Exception as error:  # noqa: BLE001 - the trained network is worth more
        reason = f"{type(error).__name__}: {error}"
        result = _keep_float32(directory, manifest, reason, comparison)
    seconds = time.monotonic() - start
    logger.info("precision=%s quantization_seconds=%.1f: %s", result.precision, seconds, reason)
    return result


def calibration_places(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the indices of images, spread evenly over the classes by their shares."""
    count = min(CALIBRATION_IMAGES, len(labels))
    spread = np.linspace(0, len(labels) - 1, count).astype(int)
    places: npt.NDArray[np.int64] = np.argsort(labels, kind="stable")[spread]
    return places


def quantize(onnx_model: Path, pixels: Pixels, target: Path, network: str, stop: Stop) -> None:
    """Write an ONNX file in int8, calibrated with uint8 images (N, H, W, 3).

    Raises:
        Stopped: a stop was requested.
        NotQuantizedError: NNCF cannot do it.
    """
    stored, log = target.with_name("pixels.npy"), target.with_name("log")
    np.save(stored, pixels)
    paths = [path.resolve() for path in (onnx_model, stored, target)]
    command = [sys.executable, "-m", "container.training.output.quantizer", *map(str, paths)]
    if network.startswith(TRANSFORMERS):
        command.append("--transformer")
    logger.info("quantizing=int8 calibration_images=%d", len(pixels))
    # Its progress is drawn for terminals; of interest is what it fails with.
    with (
        log.open("wb") as file,
        subprocess.Popen(command, stdout=file, stderr=file, cwd=PROGRAM) as process,
    ):
        try:
            while process.poll() is None:
                stop.check()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(LOOK_SECONDS)
        finally:
            process.kill()
    if process.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        message = f"NNCF ended with {process.returncode}: {lines[-1] if lines else 'no word'}"
        raise NotQuantizedError(message)


def compare(
    network: Int8Network,
    validation: ImageSet,
    predicted: npt.NDArray[np.int64],
    calibration_images: int,
    stop: Stop,
) -> Comparison:
    """Judge an int8 network by validation images and by what float32 names them."""
    count = min(JUDGED_IMAGES, len(validation))
    places = np.linspace(0, len(validation) - 1, count).astype(int)
    named = []
    with tqdm(total=count, desc="int8", unit=" images", disable=None) as bar:
        for start in range(0, count, BATCH_SIZE):
            stop.check()
            pixels = validation.pixels[places[start : start + BATCH_SIZE]]
            named.append(network.answer(pixels).argmax(axis=1))
            bar.update(len(pixels))
    return Comparison.of(
        validation.labels[places],
        predicted[places],
        np.concatenate(named),
        calibration_images=calibration_images,
    )


def _keep_float32(
    directory: Path, manifest: Manifest, reason: str, comparison: Comparison | None
) -> Manifest:
    """Say in the artifact why it has no int8 network."""
    result = _saying(manifest, FLOAT32, reason, comparison)
    # On a full disk it stays untold.
    with suppress(OSError, ArtifactError), artifact.extending(directory, result):
        pass
    return result


def _saying(
    manifest: Manifest, precision: str, reason: str, comparison: Comparison | None
) -> Manifest:
    metrics = {**manifest.metrics, METRICS: verdict(precision, reason, comparison)}
    return dataclasses.replace(manifest, precision=precision, metrics=metrics)
