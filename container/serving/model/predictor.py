"""An image's class: an artifact in memory, found to answer as it did in training."""

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
    """An engine's work."""

    def __call__(self, image: Pixels, *, is_idle: bool) -> Probabilities:
        """Turn uint8 (image_size, image_size, 3) into float32 (classes,).

        `is_idle` says that no other image is in work or waits.
        """


class Running(Protocol):
    """An engine with a network in it."""

    @property
    def infer(self) -> Infer:
        """Predict an image."""

    def close(self) -> None:
        """End what it has running; nobody waits for a prediction, nor will."""


Start: TypeAlias = Callable[[Manifest, Variant], Running]


def _nothing() -> None:
    pass


@dataclass(frozen=True, kw_only=True, slots=True, weakref_slot=True)
class Predictor:
    """What a request needs of an artifact."""

    class_names: Sequence[str]
    """In the order of the probabilities."""

    preprocessing: Preprocessing

    infer: Infer

    close: Callable[[], None] = _nothing
    """Ends what the engine has running, when nobody has the predictor any more."""

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
        """Read, compile, and compare the golden answers; `precision` overrules our choice.

        With `batching` PyTorch serves, else OpenVINO with `streams` and `latency_threads`.

        Raises:
            ArtifactError: there is no artifact, it is damaged, or it answers otherwise here than
                in training.
        """
        artifact = Artifact.read(directory)
        if batching is None:
            start: Start = partial(_compiled, streams=streams, latency_threads=latency_threads)
            found = variants(artifact, precision)
        else:
            # In the container image for GPUs alone.
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
    def _load(cls, manifest: Manifest, variant: Variant, start: Start) -> Self:
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
            FloatingPointError: the network's answer is not finite.
        """
        probabilities = self.infer(image, is_idle=is_idle)
        if not np.isfinite(probabilities).all():
            message = "the network answered with NaN or infinity"
            raise FloatingPointError(message)
        return probabilities

    def check(self, golden_answers: Sequence[GoldenAnswer], tolerance: float) -> None:
        """Compare with what training saw; no probability may differ by more than `tolerance`.

        Raises:
            ArtifactError: an answer differs, or there is none to compare.
        """
        if not golden_answers:
            message = "the artifact holds no golden answer: nothing shows that it works here"
            raise ArtifactError(message)
        for number, golden in enumerate(golden_answers):
            image = preprocess(golden.data, self.preprocessing)
            # In turns, for both ways are the same network's, and a start should be quick.
            difference = _difference(golden, self.infer(image, is_idle=number % 2 == 1))
            # This way round, NaN fails too.
            if not difference <= tolerance:
                message = (
                    f"golden answer {number} differs from training's by {difference:.3g}, "
                    f"more than {tolerance}: this machine would answer incorrectly"
                )
                raise ArtifactError(message)


def _compiled(
    manifest: Manifest, variant: Variant, *, streams: int, latency_threads: int
) -> Running:
    """Compile with OpenVINO."""
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
        message = f"a golden answer has {expected.size} probabilities, not {probabilities.size}"
        raise ArtifactError(message)
    return float(np.abs(probabilities - expected).max())
