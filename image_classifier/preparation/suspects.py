"""Images whose label is probably wrong, and images that are unlike all others.

Labels are compared with the predictions of a linear model that has not seen them. Its features are
simple ones, or those of a pretrained network.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from container.classifier.label_issues import label_issues
from image_classifier.preparation.features import Features, simple_features
from image_classifier.preparation.findings import Finding
from image_classifier.preparation.labels import Labeled, class_names
from image_classifier.preparation.linear_model import held_out_predictions
from image_classifier.preparation.scan import Scan

# With fewer images there is nothing to compare with.
MIN_IMAGES = 11

# If the model contradicts more labels, it is more likely that the model is wrong.
MAX_CONTRADICTED = 0.2

NEIGHBORS = 10

# As cleanlab does by default: the distance to the neighbors, relative to the median.
MAX_DISTANCE = 1 / 0.37

# Distances are to a random sample of so many images.
MAX_REFERENCES = 2_500

BLOCK = 1024


@dataclass(frozen=True, slots=True)
class LabelCheck:
    """What a model found out about labels."""

    accuracy: float
    """Share of the images whose label it predicts; 0 if there are too few images."""

    contradicted: float
    """Share of the labels that it contradicts with confidence."""

    findings: list[Finding]

    has_network: bool = False
    """Whether the features are those of a pretrained network."""

    @property
    def is_reliable(self) -> bool:
        """Whether the model is good enough to check labels."""
        return self.accuracy > 0 and self.contradicted <= MAX_CONTRADICTED

    @property
    def sentence(self) -> str:
        """Why labels were not checked; empty if they were."""
        if self.is_reliable or not self.accuracy:
            return ""
        features, remedy = "simple", "a pretrained network: --weights FILE --network NAME"
        if self.has_network:
            features, remedy = "the network's", "more images, or weights of another network"
        return (
            f"Labels were not checked: a model of {features} features predicts only "
            f"{self.accuracy:.0%} of them. Use {remedy}."
        )


def check_labels(
    images: Sequence[Labeled], scan: Scan, indices: npt.NDArray[np.int64]
) -> LabelCheck:
    """Check the labels of the images at `indices`, none of which are copies."""
    names = class_names(images)
    if len(indices) < MIN_IMAGES or len(names) == 1:
        return LabelCheck(0.0, 0.0, [])
    numbers = {name: number for number, name in enumerate(names)}
    labels = np.array([numbers[images[index].class_name] for index in indices], dtype=np.int64)

    def select(chosen: npt.NDArray[np.int64]) -> Features:
        rows = indices[chosen]
        if scan.network_features is not None:
            return scan.network_features[rows]
        return simple_features(scan.edges[rows], scan.thumbnails[rows])

    predictions, components = held_out_predictions(select, labels)
    contradicted = label_issues(predictions, labels)
    findings = [
        Finding(
            "outlier",
            images[int(indices[number])].name,
            f"the {NEIGHBORS} most similar images are {ratio:.1f} times as far as usual",
        )
        for number, ratio in _find_outliers(components).items()
    ]
    accuracy = float((predictions.predicted == labels).mean())
    if contradicted.mean() <= MAX_CONTRADICTED:
        for number in np.flatnonzero(contradicted).tolist():
            image = images[int(indices[number])]
            text = (
                f"labeled {image.class_name}; a model of the other images predicts "
                f"{names[predictions.predicted[number]]} ({predictions.probability[number]:.0%})"
            )
            findings.append(Finding("label-suspect", image.name, text))
    has_network = scan.network_features is not None
    return LabelCheck(accuracy, float(contradicted.mean()), findings, has_network)


def _find_outliers(components: Features) -> dict[int, float]:
    """Find images that are far from the most similar ones.

    Args:
        components: (N, M): the principal components of their features.

    Returns:
        By an outlier's index, the mean cosine distance to its neighbors, relative to the median.
    """
    count = len(components)
    chosen = np.sort(np.random.default_rng(0).permutation(count)[:MAX_REFERENCES])
    lengths = np.linalg.norm(components, axis=1, keepdims=True)
    directions = components / np.maximum(lengths, 1e-6)
    references = directions[chosen]
    distances = np.zeros(count)
    for start in range(0, count, BLOCK):
        block = np.arange(start, min(start + BLOCK, count))
        similarity = directions[block] @ references.T
        # An image is not its own neighbor.
        similarity[block[:, None] == chosen[None]] = -np.inf
        nearest = np.partition(similarity, -NEIGHBORS, axis=1)[:, -NEIGHBORS:]
        distances[block] = 1 - nearest.mean(axis=1)
    ratios = distances / max(float(np.median(distances)), 1e-6)
    return {int(index): float(ratios[index]) for index in np.flatnonzero(ratios > MAX_DISTANCE)}
