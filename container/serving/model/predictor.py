"""A loaded artifact, verified to reproduce the predictions recorded at training time."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, Self, TypeAlias

import numpy as np

from container.classifier.artifact import Artifact, GoldenAnswer
from container.classifier.errors import ArtifactError
from container.classifier.manifest import Manifest
from container.classifier.preprocessing import Pixels, Preprocessing, preprocess
from container.serving.model.batching import Batching
from container.serving.model.engine import Engine
from container.serving.model.outcome import Probabilities
from container.serving.model.precision import Variant, variants

logger = logging.getLogger(__name__)


class Infer(Protocol):
    """An engine's inference function."""

    def __call__(self, image: Pixels, *, is_idle: bool) -> Probabilities:
        """Turn uint8 (image_size, image_size, 3) into float32 (classes,).

        `is_idle` means that no other image is processed or waits.
        """


class RunningEngine(Protocol):
    """An engine that has loaded a network."""

    @property
    def infer(self) -> Infer:
        """Predict an image."""

    def close(self) -> None:
        """Stop the threads and free the memory; no prediction may be running."""


StartEngine: TypeAlias = Callable[[Manifest, Variant], RunningEngine]


@dataclass(frozen=True, kw_only=True, slots=True, weakref_slot=True)
class Predictor:
    """The parts of an artifact that requests need."""

    class_names: Sequence[str]
    """In the order of the probabilities."""

    preprocessing: Preprocessing

    infer: Infer

    close: Callable[[], None] = lambda: None
    """Closes the engine once no request uses the predictor."""

    @classmethod
    def load(
        cls,
        directory: Path,
        *,
        streams: int = 1,
        latency_threads: int = 1,
        precision: str = "",
        batching: Batching | None = None,
    ) -> Self:
        """Read an artifact, start the engine, and verify the golden answers.

        Args:
            directory: The artifact's folder.
            streams: Images that OpenVINO predicts at the same time.
            latency_threads: Cores for the only image in the server, with OpenVINO.
            precision: A precision that replaces the choice by processor.
            batching: If given, PyTorch serves instead of OpenVINO.

        Raises:
            ArtifactError: The artifact is missing or damaged, or does not reproduce its golden
                answers.
        """
        artifact = Artifact.read(directory)
        if batching is None:
            start: StartEngine = partial(
                _start_openvino, streams=streams, latency_threads=latency_threads
            )
            found = variants(artifact, precision)
        else:
            # Only the GPU container image has PyTorch.
            from container.serving.model import torch_engine  # noqa: PLC0415

            start = partial(torch_engine.TorchEngine, batching=batching)
            found = torch_engine.variants(artifact, precision)
        *faster, last = found
        for variant in faster:
            try:
                return cls._load(artifact.manifest, variant, start)
            except ArtifactError as error:
                logger.warning("%s is not served: %s", variant.precision, error)
        return cls._load(artifact.manifest, last, start)

    @classmethod
    def _load(cls, manifest: Manifest, variant: Variant, start: StartEngine) -> Self:
        engine = start(manifest, variant)
        predictor = cls(
            class_names=manifest.class_names,
            preprocessing=manifest.preprocessing,
            infer=engine.infer,
            close=engine.close,
        )
        try:
            predictor.check(variant.golden_answers, variant.tolerance)
        except BaseException:
            predictor.close()
            raise
        logger.info("precision=%s", variant.precision)
        return predictor

    def predict(self, image: Pixels, *, is_idle: bool) -> Probabilities:
        """Predict an image.

        Raises:
            FloatingPointError: The network returned NaN or infinity.
        """
        probabilities = self.infer(image, is_idle=is_idle)
        if not np.isfinite(probabilities).all():
            raise FloatingPointError("the network returned NaN or infinity")
        return probabilities

    def check(self, golden_answers: Sequence[GoldenAnswer], tolerance: float) -> None:
        """Verify that no probability differs from a golden one by more than `tolerance`.

        Raises:
            ArtifactError: A probability differs, or there are no golden answers.
        """
        if not golden_answers:
            raise ArtifactError(
                "the artifact has no golden answers, so its predictions cannot be verified"
            )
        for number, golden in enumerate(golden_answers):
            image = preprocess(golden.data, self.preprocessing)
            # Alternate between the two compiled networks: testing both with each image would delay
            # the start.
            difference = _difference(golden, self.infer(image, is_idle=number % 2 == 1))
            # `not <=`, because NaN must fail too.
            if not difference <= tolerance:
                raise ArtifactError(
                    f"golden answer {number} differs from training's by {difference:.3g}, "
                    f"more than {tolerance}: this machine would answer incorrectly"
                )


def _start_openvino(
    manifest: Manifest, variant: Variant, *, streams: int, latency_threads: int
) -> RunningEngine:
    return Engine(
        variant.network,
        image_size=manifest.preprocessing.image_size,
        classes=len(manifest.class_names),
        precision=variant.precision,
        streams=streams,
        latency_threads=latency_threads,
    )


def _difference(golden: GoldenAnswer, probabilities: Probabilities) -> float:
    expected = np.array(golden.probabilities, np.float32)
    if expected.shape != probabilities.shape:
        raise ArtifactError(
            f"a golden answer has {expected.size} probabilities, not {probabilities.size}"
        )
    return float(np.abs(probabilities - expected).max())
