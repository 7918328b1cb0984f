"""Predictions of a linear model for images that it was not fitted to."""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from container.classifier.label_issues import Predictions
from image_classifier.preparation.features import Features

# The model is fitted to a random sample of so many images, which keeps time and memory linear.
MAX_FITTED = 10_000

BLOCK = 1024

# Of the ridge, relative to the mean variance of the features.
STRENGTHS = (0.01, 0.1, 1.0, 10.0)

# Factors of the scores before the softmax.
FACTORS = np.geomspace(1, 60, 40)

Scores = npt.NDArray[np.float64]


def held_out_predictions(
    features: Callable[[npt.NDArray[np.int64]], Features], labels: npt.NDArray[np.int64]
) -> Predictions:
    """Predict the class of each of N images by a model that is fitted without this image.

    A ridge regression on the classes: leaving one image out has a closed form. Its squared error
    tolerates wrong labels better than the likelihood of a logistic regression.

    Args:
        features: Returns the features (n, D) of n images by their indices.
        labels: (N,): indices of at least two classes.
    """
    count = len(labels)
    fitted = np.sort(np.random.default_rng(0).permutation(count)[:MAX_FITTED])
    model = _Ridge(features(fitted), labels[fitted], int(labels.max()) + 1)
    factor = min(FACTORS, key=lambda value: float(model.losses(value).mean()))
    predicted, probability, losses = np.zeros(count, np.int64), np.zeros(count), np.zeros(count)
    rows = np.full(count, -1)
    rows[fitted] = np.arange(len(fitted))
    for block in _blocks(count):
        scores = np.empty((len(block), model.held_out.shape[1]))
        known = rows[block] >= 0
        scores[known] = model.held_out[rows[block][known]]
        if not known.all():
            scores[~known] = model.scores(features(block[~known]))
        logs = _log_softmax(scores * factor)
        predicted[block] = logs.argmax(axis=1)
        probability[block] = np.exp(logs.max(axis=1))
        losses[block] = -logs[np.arange(len(block)), labels[block]]
    return Predictions(predicted, probability, losses)


def principal_directions(standard: Features) -> tuple[Features, Features]:
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


class _Ridge:
    """A ridge regression on the indicators of classes; the strength is that of the least error."""

    def __init__(self, features: Features, labels: npt.NDArray[np.int64], classes: int) -> None:
        self._labels = labels
        self._mean = features.mean(axis=0)
        self._scale = 1 / (features.std(axis=0) + 1e-6)
        standard = (features - self._mean) * self._scale
        count = len(standard)
        values, directions = principal_directions(standard)
        values = np.maximum(values, 0).astype(np.float64)
        projected = standard @ directions
        targets = np.eye(classes)[labels]
        self._targets_mean = targets.mean(axis=0)
        targets -= self._targets_mean
        correlation, squares = projected.T @ targets, projected**2
        least = np.inf
        for strength in STRENGTHS:
            weights = 1 / (values + strength * values.mean() + 1e-9)
            residuals = targets - projected @ (correlation * weights[:, None])
            leverage = np.minimum(squares @ weights + 1 / count, 1 - 1e-6)
            residuals /= 1 - leverage[:, None]
            error = float((residuals**2).mean())
            if error < least:
                least, self.held_out = error, targets - residuals + self._targets_mean
                self._coefficients = directions @ (correlation * weights[:, None])

    def scores(self, features: Features) -> Scores:
        """Return the scores (n, C) of images that the model was not fitted to."""
        standard = (features - self._mean) * self._scale
        found: Scores = standard @ self._coefficients + self._targets_mean
        return found

    def losses(self, factor: float) -> npt.NDArray[np.float64]:
        """Return the held-out negative log-likelihoods."""
        return -_log_softmax(self.held_out * factor)[np.arange(len(self._labels)), self._labels]


def _blocks(count: int) -> Iterator[npt.NDArray[np.int64]]:
    for start in range(0, count, BLOCK):
        yield np.arange(start, min(start + BLOCK, count))


def _log_softmax(scores: Scores) -> Scores:
    shifted = scores - scores.max(axis=1, keepdims=True)
    found: Scores = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found
