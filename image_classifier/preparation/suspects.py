"""Images whose most similar images have another label."""

import numpy as np
import numpy.typing as npt

from container.classifier.preprocessing import Pixels

NEIGHBORS = 10

# Neighbors that must be of one other class; one of the ten may be mislabeled too.
MIN_VOTES = 9

# Below this accuracy of the nearest neighbors, similarity does not predict the label.
MIN_ACCURACY = 0.8

# A random sample of the images is compared with, which keeps the time linear.
MAX_REFERENCES = 10_000

BLOCK = 1024


def find_suspects(
    thumbnails: Pixels, labels: npt.NDArray[np.int64]
) -> tuple[float, dict[int, tuple[int, int]]]:
    """Predict labels from the nearest neighbors of N images, none of which are copies.

    Args:
        thumbnails: (N, 16, 16, 3)
        labels: (N,)

    Returns:
        The fraction of the images whose label the neighbors predict; and by a suspect image's
        index the label of its neighbors, and how many have it.
    """
    if len(labels) <= NEIGHBORS:
        return 0.0, {}
    # 8 x 8 pixels, without the mean brightness and contrast.
    features = thumbnails.reshape(len(labels), 8, 2, 8, 2, 3).mean(axis=(2, 4), dtype=np.float32)
    features = features.reshape(len(labels), -1)
    features -= features.mean(axis=1, keepdims=True)
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-6)
    random = np.random.default_rng(0)
    chosen = np.sort(random.permutation(len(labels))[:MAX_REFERENCES])
    references, reference_labels = features[chosen], labels[chosen]
    correct, suspects = 0, {}
    for start in range(0, len(labels), BLOCK):
        block = np.arange(start, min(start + BLOCK, len(labels)))
        similarity = features[block] @ references.T
        # An image is not its own neighbor.
        similarity[block[:, None] == chosen[None]] = -np.inf
        nearest = np.argpartition(-similarity, NEIGHBORS, axis=1)[:, :NEIGHBORS]
        for index, neighbors in zip(block.tolist(), reference_labels[nearest], strict=True):
            names, counts = np.unique(neighbors, return_counts=True)
            best = int(counts.argmax())
            label = int(labels[index])
            correct += int(names[best]) == label
            if counts[best] >= MIN_VOTES and names[best] != label:
                suspects[index] = (int(names[best]), int(counts[best]))
    accuracy = correct / len(labels)
    return accuracy, suspects if accuracy >= MIN_ACCURACY else {}
