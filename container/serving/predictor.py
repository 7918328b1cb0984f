"""A picture's class: an artifact in memory, found to answer as it did in training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from classifier.artifact import Artifact, GoldenAnswer
from classifier.errors import ArtifactError
from classifier.preprocessing import Pixels, Preprocessing, preprocess
from serving.encoding import Probabilities
from serving.engine import Engine

# Another processor adds up in another order: 4e-6 was seen between engines in float32.
GOLDEN_TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictor:
    """What a request needs of an artifact."""

    class_names: Sequence[str]
    """In the order of the probabilities."""

    preprocessing: Preprocessing

    infer: Callable[[Pixels], Probabilities]
    """uint8 (N, image_size, image_size, 3) to float32 (N, classes)."""

    @classmethod
    def load(cls, directory: Path, *, streams: int) -> Self:
        """Read, compile, warm up, and compare the golden answers.

        Raises:
            ArtifactError: there is no artifact, it is damaged, or it answers otherwise here than
                in training.
        """
        artifact = Artifact.read(directory)
        manifest = artifact.manifest
        image_size = manifest.preprocessing.image_size
        engine = Engine(
            artifact.onnx_model,
            image_size=image_size,
            classes=len(manifest.class_names),
            precision=manifest.precision,
            streams=streams,
        )
        for _ in range(streams):
            engine.infer(np.zeros((1, image_size, image_size, 3), np.uint8))
        predictor = cls(
            class_names=manifest.class_names,
            preprocessing=manifest.preprocessing,
            infer=engine.infer,
        )
        predictor.check(artifact.golden_answers)
        return predictor

    def predict(self, images: Pixels) -> Probabilities:
        """Predict N pictures.

        Raises:
            FloatingPointError: the network's answer is not finite.
        """
        probabilities = self.infer(images)
        if not np.isfinite(probabilities).all():
            message = "the network answered with NaN or infinity"
            raise FloatingPointError(message)
        return probabilities

    def check(self, golden_answers: Sequence[GoldenAnswer]) -> None:
        """Compare with what training saw.

        Raises:
            ArtifactError: an answer differs, or there is none to compare.
        """
        if not golden_answers:
            message = "the artifact holds no golden answer: nothing shows that it works here"
            raise ArtifactError(message)
        for number, golden in enumerate(golden_answers):
            images = preprocess(golden.data, self.preprocessing)[np.newaxis]
            probabilities = self.infer(images)[0]
            expected = np.array(golden.probabilities, np.float32)
            if expected.shape != probabilities.shape:
                message = f"golden answer {number} has {expected.size} probabilities"
                raise ArtifactError(message)
            difference = np.abs(probabilities - expected).max()
            # This way round, NaN fails too.
            if not difference <= GOLDEN_TOLERANCE:
                message = (
                    f"golden answer {number} differs from training's by {difference:.3g}, "
                    f"more than {GOLDEN_TOLERANCE}: this machine would answer wrongly"
                )
                raise ArtifactError(message)
