"""Which images make up each batch, and what an uneven data set does to that."""

import math
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Balance: TypeAlias = Literal["none", "weights", "sampling"]


def class_weights(labels: npt.NDArray[np.int64], num_classes: int) -> npt.NDArray[np.float32]:
    """Return (C,): weights whose sum over the images is the same for every class, mean 1."""
    counts = np.bincount(labels, minlength=num_classes)
    weights = len(labels) / (num_classes * counts)
    return weights.astype(np.float32)


def batches(
    labels: npt.NDArray[np.int64], batch_size: int, random: np.random.Generator, *, balanced: bool
) -> list[npt.NDArray[np.int64]]:
    """Shuffle an epoch's images into batches of nearly equal sizes, none above `batch_size`.

    Args:
        labels: Of shape (N,).
        batch_size: The most images of a batch.
        random: Where chance comes from.
        balanced: Take N images, as many of each class, instead of each image once.

    Returns:
        Indices of images.
    """
    count = len(labels)
    order = _balanced(labels, random) if balanced else np.arange(count)
    return np.array_split(random.permutation(order), math.ceil(count / batch_size))


def _balanced(labels: npt.NDArray[np.int64], random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return N indices: of a large class some images, those of a rare one several times."""
    classes = random.permutation(np.unique(labels))
    # Whatever doesn't divide evenly goes to a few classes, other ones every epoch.
    places = np.bincount(np.arange(len(labels)) % len(classes))
    return np.concatenate(
        [
            np.resize(random.permutation(np.flatnonzero(labels == label)), number)
            for label, number in zip(classes, places, strict=True)
        ]
    )
