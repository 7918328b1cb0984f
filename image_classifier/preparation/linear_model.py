"""Predictions of a linear model for images that it was not fitted to."""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from container.classifier.label_issues import Predictions
from image_classifier.preparation.features import Features

# The model is fitted to a random sample of so many images, which keeps time and memory linear.
MAX_FITTED = 10_000

BLOCK = 1024

# Strengths of the ridge, relative to the mean variance of the features.
STRENGTHS = (0.01, 0.1, 1.0, 10.0)

# Factors of the scores before the softmax.
FACTORS = np.geomspace(1, 60, 40)

# Principal components by which images are compared.
COMPONENTS = 64

Select = Callable[[npt.NDArray[np.int64]], Features]


def held_out_predictions(
    features: Select, labels: npt.NDArray[np.int64]
) -> tuple[Predictions, Features]:
    """Predict the class of each of N images by a model that is fitted without this image.

    A ridge regression on the classes: leaving one image out has a closed form. Its squared error
    tolerates wrong labels better than the likelihood of a logistic regression.

    Args:
        features: Returns the features (n, D) of n images by their indices.
        labels: (N,): indices of at least two classes.

    Returns:
        The predictions, and (N, M): the projections on the directions of the largest variance.
    """
    count = len(labels)
    fitted = np.sort(np.random.default_rng(0).permutation(count)[:MAX_FITTED])
    model = _Ridge(features(fitted), labels[fitted], int(labels.max()) + 1)
    factor = min(FACTORS, key=lambda value: float(model.losses(value).mean()))
    predicted, probability, losses = np.zeros(count, np.int64), np.zeros(count), np.zeros(count)
    components = np.empty((count, model.components.shape[1]), np.float32)
    rows = np.full(count, -1)
    rows[fitted] = np.arange(len(fitted))
    for block in _blocks(count):
        scores = np.empty((len(block), model.held_out.shape[1]), np.float32)
        known = rows[block] >= 0
        scores[known] = model.held_out[rows[block][known]]
        components[block[known]] = model.components[rows[block][known]]
        if not known.all():
            scores[~known], components[block[~known]] = model.apply(features(block[~known]))
        logs = _log_softmax(scores * factor)
        predicted[block] = logs.argmax(axis=1)
        probability[block] = np.exp(logs.max(axis=1))
        losses[block] = -logs[np.arange(len(block)), labels[block]]
    return Predictions(predicted, probability, losses), components


class _Ridge:
    """A ridge regression on the indicators of classes; the strength is that of the least error."""

    def __init__(self, features: Features, labels: npt.NDArray[np.int64], classes: int) -> None:
        self._labels = labels
        self._mean = features.mean(axis=0)
        self._scale = 1 / (features.std(axis=0) + 1e-6)
        standard = self._standardized(features)
        values, directions = _principal_directions(standard)
        values = np.maximum(values, 0)
        projected = standard @ directions
        self._directions = directions[:, -COMPONENTS:]
        self.components = projected[:, -COMPONENTS:].copy()
        # In float32, as the features are: another type would copy the largest arrays.
        targets = np.eye(classes, dtype=np.float32)[labels]
        self._targets_mean = targets.mean(axis=0)
        targets -= self._targets_mean
        correlation, squares = projected.T @ targets, projected**2
        least = np.inf
        for strength in STRENGTHS:
            weights = 1 / (values + np.float32(strength) * values.mean() + np.float32(1e-9))
            residuals = targets - projected @ (correlation * weights[:, None])
            leverage = np.minimum(squares @ weights + 1 / len(standard), 1 - 1e-6)
            residuals /= 1 - leverage[:, None]
            error = float((residuals**2).mean())
            if error < least:
                least, self.held_out = error, targets - residuals + self._targets_mean
                self._coefficients = directions @ (correlation * weights[:, None])

    def apply(self, features: Features) -> tuple[Features, Features]:
        """Return scores (n, C) and components of images that the model was not fitted to."""
        standard = self._standardized(features)
        return standard @ self._coefficients + self._targets_mean, standard @ self._directions

    def losses(self, factor: float) -> npt.NDArray[np.float32]:
        """Return the held-out negative log-likelihoods."""
        return -_log_softmax(self.held_out * factor)[np.arange(len(self._labels)), self._labels]

    def _standardized(self, features: Features) -> Features:
        standard: Features = features - self._mean
        standard *= self._scale
        return standard


def _principal_directions(standard: Features) -> tuple[Features, Features]:
    """Return the eigenvalues of the squares of features (N, D), ascending, and the directions.

    Returns:
        (M,) and (D, M), where M is the lesser of N and D.
    """
    count, dimensions = standard.shape
    if count >= dimensions:
        values, directions = np.linalg.eigh(standard.T @ standard)
        return values, directions
    # The eigenvalues of both products are equal, except for zeros.
    values, vectors = np.linalg.eigh(standard @ standard.T)
    return values, standard.T @ (vectors / np.sqrt(np.maximum(values, 1e-3)))


def _blocks(count: int) -> Iterator[npt.NDArray[np.int64]]:
    for start in range(0, count, BLOCK):
        yield np.arange(start, min(start + BLOCK, count))


def _log_softmax(scores: Features) -> Features:
    shifted = scores - scores.max(axis=1, keepdims=True)
    found: Features = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found
