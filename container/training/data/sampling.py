"""The choice of images: for validation, for each batch, and by class if classes are imbalanced."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from container.classifier.labeled_images import LabeledFile

Balance: TypeAlias = Literal["none", "weights", "sampling"]


def split_validation(
    files: Sequence[LabeledFile], fraction: float, seed: int
) -> tuple[list[LabeledFile], list[LabeledFile]]:
    """Split off the same fraction of every class; equal seeds split equally.

    Returns:
        The files for training and for validation, both in the order of `files`.
    """
    by_class: dict[str, list[int]] = defaultdict(list)
    for index, file in enumerate(files):
        by_class[file.class_name].append(index)
    random = np.random.default_rng(seed)
    held_out: set[int] = set()
    for indices in by_class.values():
        # At least one for validation, but one must remain for training.
        count = min(max(1, round(len(indices) * fraction)), len(indices) - 1)
        held_out.update(random.permutation(indices)[:count].tolist())
    training = [file for index, file in enumerate(files) if index not in held_out]
    return training, [files[index] for index in sorted(held_out)]


def class_weights(labels: npt.NDArray[np.int64], num_classes: int) -> npt.NDArray[np.float32]:
    """Return class weights (C,): equal sums over each class's images, mean 1 over all images."""
    counts = np.bincount(labels, minlength=num_classes)
    weights = len(labels) / (num_classes * counts)
    return weights.astype(np.float32)


def batches(
    labels: npt.NDArray[np.int64], batch_size: int, random: np.random.Generator, *, balanced: bool
) -> list[npt.NDArray[np.int64]]:
    """Shuffle an epoch's N images into batches of nearly equal size; return the indices by batch.

    If `balanced`, draw N images, the same number of each class, instead of each image once.
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
