"""How good a classifier is on pictures as serving sees them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from classifier.artifact import Json
from training.network import Classifier
from training.pictures import Pictures

BATCH_SIZE = 256


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


@torch.inference_mode()
def evaluate(
    classifier: Classifier,
    pictures: Pictures,
    device: torch.device,
    num_classes: int,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Evaluation | None:
    """Evaluate in float32 on the pixels as serving sees them; None when stopped in between."""
    classifier.eval()
    loss, predicted = 0.0, []
    for start in range(0, len(pictures), BATCH_SIZE):
        if is_stopped():
            return None
        batch = slice(start, start + BATCH_SIZE)
        logits = classifier(to_images(pictures.pixels[batch], device))
        labels = torch.from_numpy(pictures.labels[batch]).to(device)
        loss += cross_entropy(logits, labels, reduction="sum").item()
        predicted.append(logits.argmax(dim=1).cpu().numpy())
    confusion = confusion_matrix(pictures.labels, np.concatenate(predicted), num_classes)
    return Evaluation(loss / len(pictures), confusion)


def to_images(pixels: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    """Return float32 (N, 3, H, W), channels last in memory, of uint8 (N, H, W, 3)."""
    # Torch wants memory that it may write: a slice of the mapped file is copied, what fancy
    # indexing has copied is taken as it is.
    own = np.require(pixels, requirements="W")
    return torch.from_numpy(own).to(device).permute(0, 3, 1, 2).float()


def per_class(confusion: npt.NDArray[np.int64], class_names: Sequence[str]) -> dict[str, Json]:
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
