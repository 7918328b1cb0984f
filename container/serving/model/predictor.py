"""A loaded artifact, verified to reproduce the predictions recorded at training time."""

import functools
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
from container.serving.model import speed
from container.serving.model.batching import Batching
from container.serving.model.engine import Engine, Model, read_network
from container.serving.model.outcome import Probabilities
from container.serving.model.precision import Variant, variants
from container.serving.model.speed import Choice

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

    precision: str = ""
    """That of the loaded network."""

    @classmethod
    def load(
        cls,
        directory: Path,
        *,
        streams: int = 1,
        latency_threads: int = 1,
        precision: str = "",
        batching: Batching | None = None,
        choice: Choice | None = None,
    ) -> Self:
        """Read an artifact, start the engine, and verify the golden answers.

        Args:
            directory: The artifact's folder.
            streams: Images that OpenVINO predicts at the same time.
            latency_threads: Cores for the only image in the server, with OpenVINO.
            precision: A precision that replaces the choice by speed.
            batching: If given, PyTorch serves instead of OpenVINO.
            choice: The choice of all processes that serve this artifact.

        Raises:
            ArtifactError: The artifact is missing or damaged, or does not reproduce its golden
                answers.
        """
        artifact = Artifact.read(directory)
        # bfloat16 and float32 have the same file.
        openvino = partial(_start_openvino, read=functools.cache(read_network))
        if batching is None:
            start: StartEngine = partial(openvino, streams=streams, latency_threads=latency_threads)
            found = variants(artifact, precision)
        else:
            # Only the GPU container image has PyTorch.
            from container.serving.model import torch_engine  # noqa: PLC0415

            start = partial(torch_engine.TorchEngine, batching=batching)
            found = torch_engine.variants(artifact, precision)
        predictor = cls._load_first(artifact.manifest, found, start)
        if not precision and batching is None:
            # Without a network for latency: a prediction takes one core.
            single = partial(openvino, streams=1, latency_threads=1)
            measure = partial(_fastest, artifact.manifest, predictor, found, single)
            chosen = choice.get(measure) if choice else measure()
            if chosen != predictor.precision:
                order = (chosen, predictor.precision)
                # Its memory is free before the other network is compiled.
                del predictor, measure
                found = sorted(
                    (variant for variant in found if variant.precision in order),
                    key=lambda variant: order.index(variant.precision),
                )
                predictor = cls._load_first(artifact.manifest, found, start)
        logger.info("precision=%s", predictor.precision)
        return predictor

    @classmethod
    def _load_first(cls, manifest: Manifest, found: Sequence[Variant], start: StartEngine) -> Self:
        """Load the first variant that reproduces its golden answers."""
        *preferred, last = found
        for variant in preferred:
            try:
                return cls._load(manifest, variant, start)
            except ArtifactError as error:
                logger.warning("%s is not served: %s", variant.precision, error)
        return cls._load(manifest, last, start)

    @classmethod
    def _load(cls, manifest: Manifest, variant: Variant, start: StartEngine) -> Self:
        engine = start(manifest, variant)
        predictor = cls(
            class_names=manifest.class_names,
            preprocessing=manifest.preprocessing,
            infer=engine.infer,
            close=engine.close,
            precision=variant.precision,
        )
        try:
            predictor.check(variant.golden_answers, variant.tolerance)
        except BaseException:
            predictor.close()
            raise
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
    manifest: Manifest,
    variant: Variant,
    *,
    streams: int,
    latency_threads: int,
    read: Callable[[Path, int], Model],
) -> RunningEngine:
    return Engine(
        variant.network,
        image_size=manifest.preprocessing.image_size,
        classes=len(manifest.class_names),
        precision=variant.precision,
        streams=streams,
        latency_threads=latency_threads,
        read=read,
    )


def _fastest(
    manifest: Manifest, loaded: Predictor, found: Sequence[Variant], start: StartEngine
) -> str:
    """Return the fastest of the loaded precision and those that follow it in `found`."""
    by_precision = {variant.precision: variant for variant in found}
    names = [*by_precision]

    def load(precision: str) -> speed.Predict:
        return partial(start(manifest, by_precision[precision]).infer, is_idle=False)

    return speed.fastest(
        loaded.precision,
        partial(loaded.infer, is_idle=False),
        names[names.index(loaded.precision) + 1 :],
        load,
        manifest.preprocessing.image_size,
    )


def _difference(golden: GoldenAnswer, probabilities: Probabilities) -> float:
    expected = np.array(golden.probabilities, np.float32)
    if expected.shape != probabilities.shape:
        raise ArtifactError(
            f"a golden answer has {expected.size} probabilities, not {probabilities.size}"
        )
    return float(np.abs(probabilities - expected).max())
