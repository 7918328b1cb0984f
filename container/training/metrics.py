"""What is measured of a classifier, and the log lines that SageMaker reads it from."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# One log line an epoch. Each expression matches one value of a line and nothing else; they are
# given to an Estimator or a HyperparameterTuner as they stand.
METRIC_NAMES = (
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "val_precision",
    "val_recall",
    "val_f1",
    "images_per_second",
)
METRIC_DEFINITIONS = [
    {"Name": name, "Regex": rf"\b{name}=([-+0-9.eE]+)"} for name in METRIC_NAMES
]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How a network did on the validation pictures."""

    loss: float
    """Mean cross entropy, without label smoothing."""

    confusion: npt.NDArray[np.int64]
    """Of shape (C, C): rows are the true classes, columns the predicted ones."""

    def metrics(self) -> dict[str, float]:
        """Return loss, accuracy and the macro averages, under their names in the log."""
        precision, recall, f1 = _macro_averages(self.confusion)
        return {
            "val_loss": self.loss,
            "val_accuracy": self.accuracy,
            "val_precision": precision,
            "val_recall": recall,
            "val_f1": f1,
        }

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return float(self.confusion.trace() / self.confusion.sum())

    def accuracy_interval(self) -> tuple[float, float]:
        """Return the 95 % confidence interval of the accuracy (Wilson 1927)."""
        z, n = 1.959964, int(self.confusion.sum())
        center = (self.accuracy + z * z / (2 * n)) / (1 + z * z / n)
        margin = math.sqrt(self.accuracy * (1 - self.accuracy) / n + z * z / (4 * n * n))
        margin *= z / (1 + z * z / n)
        return max(0.0, center - margin), min(1.0, center + margin)


def confusion_matrix(
    labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], num_classes: int
) -> npt.NDArray[np.int64]:
    """Count the pairs of true and predicted class; both inputs are of shape (N,)."""
    cells = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def is_better(objective: str, metrics: Mapping[str, float], best: Mapping[str, float]) -> bool:
    """Tell whether `metrics` beat `best`; of equal ones the lower validation loss wins."""
    sign = -1 if objective == "val_loss" else 1
    ours, theirs = sign * metrics[objective], sign * best[objective]
    return (ours, -metrics["val_loss"]) > (theirs, -best["val_loss"])


def log_line(values: Mapping[str, float | int | str]) -> str:
    """Return `key=value` pairs in one line."""
    return " ".join(f"{key}={_format(value)}" for key, value in values.items())


def per_class(
    confusion: npt.NDArray[np.int64], class_names: Sequence[str]
) -> dict[str, dict[str, float | int]]:
    """Return precision, recall, F1 and the number of pictures of each class."""
    precision, recall, f1 = _by_class(confusion)
    return {
        name: {
            "precision": float(precision[label]),
            "recall": float(recall[label]),
            "f1": float(f1[label]),
            "pictures": int(confusion[label].sum()),
        }
        for label, name in enumerate(class_names)
    }


def _by_class(confusion: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float64], ...]:
    right = np.diag(confusion).astype(float)
    predicted, actual = confusion.sum(axis=0), confusion.sum(axis=1)
    precision = right / np.maximum(predicted, 1)
    recall = right / np.maximum(actual, 1)
    return precision, recall, 2 * right / np.maximum(predicted + actual, 1)


def _macro_averages(confusion: npt.NDArray[np.int64]) -> tuple[float, ...]:
    # A class that neither occurs nor is predicted says nothing.
    seen = (confusion.sum(axis=0) + confusion.sum(axis=1)) > 0
    return tuple(float(values[seen].mean()) for values in _by_class(confusion))


def _format(value: float | str) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
