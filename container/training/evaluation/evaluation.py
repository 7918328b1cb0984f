"""Evaluation of a classifier: loss, confusion matrix and the scores that follow from it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from container.networks.network import Classifier
from container.training.data.images import ImageSet
from container.training.device import Arithmetic
from container.training.evaluation.inference import answers
from container.training.sagemaker.stop import Stop

# Logits per part of a computation on the CPU: 32 MB of float64.
PART_VALUES = 2**22

# 97.5th percentile of the normal distribution.
Z_95 = 1.959964


class Counts(NamedTuple):
    """Numbers of images per class, each array of shape (..., C)."""

    right: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    actual: npt.NDArray[np.int64]

    def scores(self) -> dict[str, npt.NDArray[np.float64]]:
        """Return precision, recall and F1 per class, of shape (..., C); 0 where undefined."""
        return {
            "precision": self.right / np.maximum(self.predicted, 1),
            "recall": self.right / np.maximum(self.actual, 1),
            "f1": 2 * self.right / np.maximum(self.predicted + self.actual, 1),
        }

    def averages(self) -> dict[str, npt.NDArray[np.float64]]:
        """Return accuracy, balanced accuracy and macro averages, of shape (...).

        Balanced accuracy is the mean recall of the classes that occur. The macro averages include
        classes that are predicted but do not occur.
        """
        scores = self.scores()
        # A class that neither occurs nor is predicted has no score.
        seen = (self.predicted + self.actual) > 0
        return {
            "accuracy": self.right.sum(axis=-1) / self.actual.sum(axis=-1),
            "balanced_accuracy": _mean(scores["recall"], self.actual > 0),
            **{name: _mean(values, seen) for name, values in scores.items()},
        }


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The performance of a network on a channel's images."""

    loss: float
    """Mean cross-entropy, without label smoothing."""

    confusion: npt.NDArray[np.int64]
    """Of shape (C, C): rows are the true classes, columns the predicted classes."""

    @property
    def counts(self) -> Counts:
        """The numbers of images per class."""
        return Counts(self.confusion.diagonal(), self.confusion.sum(0), self.confusion.sum(1))

    def metrics(self, part: str = "val") -> dict[str, float]:
        """Return loss, accuracy and the averages over classes, by their names in the log."""
        averages = {name: float(value) for name, value in self.counts.averages().items()}
        return {f"{part}_{name}": value for name, value in {"loss": self.loss, **averages}.items()}

    @property
    def accuracy(self) -> float:
        """Fraction of correct predictions."""
        return float(self.confusion.trace() / self.confusion.sum())


def is_better(objective: str, metrics: Mapping[str, float], best: Mapping[str, float]) -> bool:
    """Return whether `metrics` are better than `best`; ties are decided by validation loss."""
    sign = -1 if objective == "val_loss" else 1
    new, old = sign * metrics[objective], sign * best[objective]
    return (new, -metrics["val_loss"]) > (old, -best["val_loss"])


def wilson(fraction: npt.ArrayLike, n: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return 95 % confidence intervals (..., 2) of fractions of `n` images (Wilson 1927).

    For n = 0 the interval is 0 to 1.
    """
    fraction, n = np.asarray(fraction, dtype=float), np.asarray(n, dtype=float)
    z = Z_95
    # Multiplied by n, so that n = 0 does not divide by zero.
    center = (fraction * n + z * z / 2) / (n + z * z)
    margin = z * np.sqrt(fraction * (1 - fraction) * n + z * z / 4) / (n + z * z)
    return np.stack([center - margin, center + margin], axis=-1).clip(0, 1)


def confusion_matrix(
    labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], num_classes: int
) -> npt.NDArray[np.int64]:
    """Count the pairs of true and predicted class; both inputs are of shape (N,)."""
    cells = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def confused_classes(confusion: npt.NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """Return true class, predicted class and number of images of all mistakes, most images first.

    Args:
        confusion: a confusion matrix (C, C).
    """
    true, predicted = np.nonzero(confusion * ~np.eye(len(confusion), dtype=bool))
    images = confusion[true, predicted]
    order = np.argsort(-images, kind="stable")
    return list(
        zip(true[order].tolist(), predicted[order].tolist(), images[order].tolist(), strict=True)
    )


def evaluate(
    classifier: Classifier,
    images: ImageSet,
    arithmetic: Arithmetic,
    num_classes: int,
    stop: Stop,
) -> Evaluation:
    """Evaluate on the pixels that serving would compute from the images.

    Raises:
        Stopped: a stop was requested.
    """
    logits = logits_of(classifier, images, arithmetic, stop)
    return evaluation_of(logits, images.labels, num_classes)


def logits_of(
    classifier: Classifier,
    images: ImageSet,
    arithmetic: Arithmetic,
    stop: Stop,
) -> npt.NDArray[np.float32]:
    """Return the logits (N, C) of all images.

    Raises:
        Stopped: a stop was requested.
    """
    logits = []
    for batch in answers(classifier, images, arithmetic):
        stop.check()
        logits.append(batch)
    return np.concatenate(logits)


def evaluation_of(
    logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], num_classes: int
) -> Evaluation:
    """Compare logits (N, C) with labels (N,)."""
    loss = sum(
        cross_entropy(logits, labels, reduction="sum").item()
        for logits, labels in in_parts(logits, labels)
    )
    confusion = confusion_matrix(labels, logits.argmax(axis=1), num_classes)
    return Evaluation(loss / len(labels), confusion)


def in_parts(
    logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield parts of logits (n, C), in float64, and labels (n,): small parts save memory."""
    size = max(1, PART_VALUES // logits.shape[1])
    for start in range(0, len(labels), size):
        part = slice(start, start + size)
        yield torch.from_numpy(logits[part]).double(), torch.from_numpy(labels[part])


def _mean(
    values: npt.NDArray[np.float64], counted: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Return the mean of the `counted` values along the last axis."""
    mean: npt.NDArray[np.float64] = (values * counted).sum(axis=-1) / counted.sum(axis=-1)
    return mean
