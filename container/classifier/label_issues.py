"""Labels that are probably wrong, by predictions of a model that has not seen them."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Predictions(NamedTuple):
    """The predictions of N images, each array of shape (N,)."""

    predicted: npt.NDArray[np.int64]
    probability: npt.NDArray[np.float64]
    """Probability of the predicted class."""
    loss: npt.NDArray[np.float64]
    """Negative log-likelihood of the true class."""


def label_issues(predictions: Predictions, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Find labels (N,) that are probably wrong, by confident learning (Northcutt et al. 2021).

    The predicted class is another one, and at least as probable as it is on average for the images
    that have it as their label. A network that is unsure of a class needs less to be confident. The
    network must not have been trained on these images.
    """
    counts = np.bincount(labels, minlength=int(predictions.predicted.max(initial=0)) + 1)
    sums = np.bincount(labels, np.exp(-predictions.loss), len(counts))
    # A class without images has no average.
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    found: npt.NDArray[np.bool_] = (predictions.predicted != labels) & (
        predictions.probability >= thresholds[predictions.predicted]
    )
    return found
