"""Whether a probability means what it says: temperature scaling and calibration error."""

import math
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import log_softmax

from container.training.evaluation.evaluation import in_parts

BINS = 15

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.05, 20.0

# Each halves an interval of the temperature's logarithm that is 6 wide.
BISECTIONS = 16


class Answers(NamedTuple):
    """What a classifier says of each image, each of shape (N,)."""

    predicted: npt.NDArray[np.int64]
    probability: npt.NDArray[np.float64]
    """Of the predicted class."""
    loss: npt.NDArray[np.float64]
    """Minus the logarithm of the true class's probability."""


def answers(
    logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], temperature: float
) -> Answers:
    """Return the answers of logits (N, C) that are divided by `temperature`."""
    probabilities, losses = [], []
    for part, part_labels in in_parts(logits, labels):
        log_probabilities = log_softmax(part / temperature, dim=1)
        probabilities.append(log_probabilities.amax(dim=1).exp())
        losses.append(-log_probabilities.gather(1, part_labels[:, None])[:, 0])
    return Answers(
        logits.argmax(axis=1), torch.cat(probabilities).numpy(), torch.cat(losses).numpy()
    )


@dataclass(frozen=True, slots=True)
class Reliability:
    """How sure answers are, and how often they are right, in 15 bins of equal width."""

    images: npt.NDArray[np.int64]
    """Of shape (15,): those whose probability lies in the bin."""

    confidence: npt.NDArray[np.float64]
    """Of shape (15,): mean of their probabilities; 0 where there are none."""

    accuracy: npt.NDArray[np.float64]
    """Of shape (15,): share of them that are right; 0 where there are none."""

    @classmethod
    def of(cls, given: Answers, labels: npt.NDArray[np.int64]) -> Self:
        """Sort answers into bins; those for labels (N,) are the right ones."""
        bins = np.minimum((given.probability * BINS).astype(int), BINS - 1)
        images = np.bincount(bins, minlength=BINS)
        confidence, right = (
            np.bincount(bins, weights, BINS) / np.maximum(images, 1)
            for weights in (given.probability, given.predicted == labels)
        )
        return cls(images, confidence, right)

    @property
    def error(self) -> float:
        """Expected calibration error: the mean distance of the two (Naeini et al. 2015)."""
        distances = np.abs(self.confidence - self.accuracy)
        return float((self.images * distances).sum() / self.images.sum())


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a temperature does to the probabilities of a channel's images."""

    before: Reliability
    after: Reliability

    @classmethod
    def of(
        cls, logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], temperature: float
    ) -> Self:
        """Compare the probabilities of logits (N, C) with those at `temperature`."""
        before, after = (
            Reliability.of(answers(logits, labels, value), labels) for value in (1.0, temperature)
        )
        return cls(before, after)


def fit_temperature(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> float:
    """Return the temperature at which the labels (N,) are likeliest (Guo et al. 2017).

    Logits (N, C) are to be divided by it. It is 1 where no other is better, and where there is no
    mistake to learn from: the likelihood then grows without end as the temperature falls.
    """
    if (logits.argmax(axis=1) == labels).all():
        return 1.0
    low, high = math.log(LOWEST_TEMPERATURE), math.log(HIGHEST_TEMPERATURE)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if _is_too_sure(logits, labels, math.exp(middle)):
            low = middle
        else:
            high = middle
    temperature = math.exp((low + high) / 2)
    fitted, before = (answers(logits, labels, value).loss.sum() for value in (temperature, 1.0))
    return temperature if fitted < before else 1.0


def _is_too_sure(
    logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], temperature: float
) -> bool:
    """Tell whether a higher temperature makes the labels likelier.

    By the derivative of minus the log-likelihood by 1 / temperature, in which it is convex.
    """
    slope = 0.0
    for part, part_labels in in_parts(logits, labels):
        expected = (torch.softmax(part / temperature, dim=1) * part).sum()
        slope += (expected - part.gather(1, part_labels[:, None]).sum()).item()
    return slope > 0
