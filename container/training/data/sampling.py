"""The images of each batch, and the handling of imbalanced classes."""

import math
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Balance: TypeAlias = Literal["none", "weights", "sampling"]


def class_weights(labels: npt.NDArray[np.int64], num_classes: int) -> npt.NDArray[np.float32]:
    """Return class weights (C,): equal sums over each class's images, mean 1 over all images."""
    counts = np.bincount(labels, minlength=num_classes)
    weights = len(labels) / (num_classes * counts)
    return weights.astype(np.float32)


def batches(
    labels: npt.NDArray[np.int64], batch_size: int, random: np.random.Generator, *, balanced: bool
) -> list[npt.NDArray[np.int64]]:
    """Shuffle an epoch's images into batches of nearly equal size, at most `batch_size`.

    Args:
        labels: Of shape (N,).
        batch_size: Maximum number of images per batch.
        random: Random generator.
        balanced: Draw N images, the same number of each class, instead of each image once.

    Returns:
        Indices of images, by batch.
    """
    count = len(labels)
    order = _balanced(labels, random) if balanced else np.arange(count)
    return np.array_split(random.permutation(order), math.ceil(count / batch_size))


def _balanced(labels: npt.NDArray[np.int64], random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return N indices: some images of a frequent class, all of a rare one several times."""
    classes = random.permutation(np.unique(labels))
    # The remainder of the division goes to a few random classes.
    counts = np.bincount(np.arange(len(labels)) % len(classes))
    return np.concatenate(
        [
            np.resize(random.permutation(np.flatnonzero(labels == label)), number)
            for label, number in zip(classes, counts, strict=True)
        ]
    )
