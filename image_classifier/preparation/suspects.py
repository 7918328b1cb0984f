"""Images whose label their most similar images contradict."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from container.classifier.preprocessing import Pixels

NEIGHBORS = 10

# Of the neighbors that must be of one other class; the last may be a fellow in error.
MIN_VOTES = 9

# Neighbors that name fewer images correctly say nothing about labels.
MIN_ACCURACY = 0.8

# Images that others are compared with, chosen by chance where there are more: linear time.
MAX_REFERENCES = 10_000

BLOCK = 1024


@dataclass(frozen=True, slots=True)
class Opinion:
    """What the neighbors say of N images."""

    accuracy: float
    """How many they name correctly, as a share."""

    suspects: dict[int, tuple[int, int]]
    """By the image's place: the label that the neighbors have, and how many of them."""


def opinion_of(thumbnails: Pixels, labels: npt.NDArray[np.int64]) -> Opinion:
    """Ask the nearest neighbors of N images, none of which is another one's copy.

    Args:
        thumbnails: (N, 16, 16, 3)
        labels: (N,)
    """
    if len(labels) <= NEIGHBORS:
        return Opinion(0.0, {})
    # Eight by eight pixels, without the mean brightness and contrast.
    features = thumbnails.reshape(len(labels), 8, 2, 8, 2, 3).mean(axis=(2, 4), dtype=np.float32)
    features = features.reshape(len(labels), -1)
    features -= features.mean(axis=1, keepdims=True)
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-6)
    random = np.random.default_rng(0)
    chosen = np.sort(random.permutation(len(labels))[:MAX_REFERENCES])
    references, reference_labels = features[chosen], labels[chosen]
    right, suspects = 0, {}
    for start in range(0, len(labels), BLOCK):
        block = np.arange(start, min(start + BLOCK, len(labels)))
        likeness = features[block] @ references.T
        # Nobody is a neighbor of its own.
        likeness[block[:, None] == chosen[None]] = -np.inf
        nearest = np.argpartition(-likeness, NEIGHBORS, axis=1)[:, :NEIGHBORS]
        for place, votes in zip(block.tolist(), reference_labels[nearest], strict=True):
            names, counts = np.unique(votes, return_counts=True)
            best = int(counts.argmax())
            label = int(labels[place])
            right += int(names[best]) == label
            if counts[best] >= MIN_VOTES and names[best] != label:
                suspects[place] = (int(names[best]), int(counts[best]))
    accuracy = right / len(labels)
    return Opinion(accuracy, suspects if accuracy >= MIN_ACCURACY else {})
