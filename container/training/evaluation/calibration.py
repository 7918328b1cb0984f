"""Calibration of probabilities: temperature scaling and expected calibration error."""

import logging
import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import log_softmax

from container.classifier.label_issues import Predictions
from container.training.evaluation.evaluation import in_parts

BINS = 15

# Half of so many validation images suffice for a temperature, and half for its error.
MANY_IMAGES = 1000

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.05, 20.0

# Each step halves the interval of log(temperature), which is 6 wide at the start.
BISECTIONS = 16

logger = logging.getLogger(__name__)


def predictions_of(
    logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], temperature: float
) -> Predictions:
    """Return the predictions from logits (N, C) at a temperature."""
    probabilities, losses = [], []
    for part, part_labels in in_parts(logits, labels):
        log_probabilities = log_softmax(part / temperature, dim=1)
        probabilities.append(log_probabilities.amax(dim=1).exp())
        losses.append(-log_probabilities.gather(1, part_labels[:, None])[:, 0])
    return Predictions(
        logits.argmax(axis=1), torch.cat(probabilities).numpy(), torch.cat(losses).numpy()
    )


@dataclass(frozen=True, slots=True)
class Reliability:
    """Confidence and accuracy of predictions, in 15 bins of equal width."""

    images: npt.NDArray[np.int64]
    """Number of images whose probability is in the bin, of shape (15,)."""

    confidence: npt.NDArray[np.float64]
    """Mean of their probabilities, of shape (15,); 0 for an empty bin."""

    accuracy: npt.NDArray[np.float64]
    """Fraction of correct predictions, of shape (15,); 0 for an empty bin."""

    @classmethod
    def of(cls, predictions: Predictions, labels: npt.NDArray[np.int64]) -> Self:
        """Sort predictions into bins and compare them with labels (N,)."""
        bins = np.minimum((predictions.probability * BINS).astype(int), BINS - 1)
        images = np.bincount(bins, minlength=BINS)
        confidence, right = (
            np.bincount(bins, weights, BINS) / np.maximum(images, 1)
            for weights in (predictions.probability, predictions.predicted == labels)
        )
        return cls(images, confidence, right)

    @property
    def error(self) -> float:
        """Expected calibration error (Naeini et al. 2015)."""
        distances = np.abs(self.confidence - self.accuracy)
        return float((self.images * distances).sum() / self.images.sum())


@dataclass(frozen=True, slots=True)
class Calibration:
    """The reliability of a channel's predictions before and after temperature scaling."""

    temperature: float
    before: Reliability
    after: Reliability

    @classmethod
    def of(
        cls, logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], temperature: float
    ) -> Self:
        """Compare predictions from logits (N, C) at temperature 1 and at `temperature`."""
        before, after = (
            Reliability.of(predictions_of(logits, labels, value), labels)
            for value in (1.0, temperature)
        )
        return cls(temperature, before, after)

    @property
    def image_count(self) -> int:
        """The number of images."""
        return int(self.before.images.sum())

    def metrics(self) -> dict[str, float]:
        """Return the temperature and the expected calibration errors, by their names in the log."""
        return {
            "temperature": self.temperature,
            "ece_before": self.before.error,
            "ece_after": self.after.error,
        }


def fit_temperature(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> float:
    """Return the temperature of logits (N, C) with the highest likelihood (Guo et al. 2017).

    Returns:
        1 if no other temperature is better, or if all predictions are correct: the likelihood then
        has no maximum, but grows as the temperature falls.
    """
    if (logits.argmax(axis=1) == labels).all():
        return 1.0
    low, high = math.log(LOWEST_TEMPERATURE), math.log(HIGHEST_TEMPERATURE)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if _is_overconfident(logits, labels, math.exp(middle)):
            low = middle
        else:
            high = middle
    temperature = math.exp((low + high) / 2)
    fitted, before = (
        predictions_of(logits, labels, value).loss.sum() for value in (temperature, 1.0)
    )
    return temperature if fitted < before else 1.0


def helpful_temperature(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> float:
    """Return the fitted temperature of logits (N, C), or 1 if it would not help.

    It helps if it lowers the expected calibration error, also that of each half of the images at
    the temperature of the other half.
    """
    temperature = fit_temperature(logits, labels)
    if temperature == 1 or len(labels) == 1:
        return 1.0
    fitted = Calibration.of(logits, labels, temperature)
    first = _half(labels)
    halves = predictions_of(logits, labels, 1.0)
    for half in (first, ~first):
        other = fit_temperature(logits[~half], labels[~half])
        halves.probability[half] = predictions_of(logits[half], labels[half], other).probability
    error = max(fitted.after.error, Reliability.of(halves, labels).error)
    if error < fitted.before.error:
        return temperature
    logger.info(
        "calibration does not help: the temperature %.3g changes the expected calibration error of "
        "%d validation images from %.3g to %.3g; the probabilities stay those of the network",
        temperature,
        len(labels),
        fitted.before.error,
        error,
    )
    return 1.0


def fitting_images(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return which of the validation images, with labels (N,), fit the temperature.

    All, or half of many: the other half then measures the calibration error.
    """
    return _half(labels) if len(labels) >= MANY_IMAGES else np.ones(len(labels), np.bool_)


def _half(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return a mask (N,) of half of the images, and of half of each class."""
    half = np.zeros(len(labels), np.bool_)
    half[np.argsort(labels, kind="stable")[::2]] = True
    return half


def _is_overconfident(
    logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], temperature: float
) -> bool:
    """Return whether a higher temperature increases the likelihood of the labels.

    This is the sign of the derivative of the negative log-likelihood with respect to
    1 / temperature, in which it is convex.
    """
    slope = 0.0
    for part, part_labels in in_parts(logits, labels):
        expected = (torch.softmax(part / temperature, dim=1) * part).sum()
        slope += (expected - part.gather(1, part_labels[:, None]).sum()).item()
    return slope > 0
