"""Shapley values of superpixels: the mean change of a class's score over all orders."""

import math

import numpy as np
import numpy.typing as npt

from image_classifier.explainer.coalitions import Coalitions

Values = npt.NDArray[np.float64]


def exact(values: Values) -> Values:
    """Return Shapley values (M, C) by their definition (Shapley 1953).

    Args:
        values: Of every coalition, of shape (2**M, C), in the order of `coalitions.every`.
    """
    segments = int(values.shape[0]).bit_length() - 1
    numbers = np.arange(len(values))
    sizes = np.array([int(number).bit_count() for number in numbers])
    shapley = np.empty((segments, values.shape[1]))
    for segment in range(segments):
        without = numbers[(numbers >> segment & 1) == 0]
        gains = values[without | 1 << segment] - values[without]
        orders = np.array([1 / (segments * math.comb(segments - 1, s)) for s in sizes[without]])
        shapley[segment] = orders @ gains
    return shapley


def kernel(
    coalitions: Coalitions, weights: Values, values: Values, *, empty: Values, full: Values
) -> Values:
    """Return Shapley values (M, C) by KernelSHAP's regression (Lundberg & Lee 2017).

    The sum of the values is `full` minus `empty`. The last value is eliminated with this
    constraint, which leaves an unconstrained least-squares problem.

    Args:
        coalitions: Of shape (S, M).
        weights: Of shape (S,).
        values: Of shape (S, C).
        empty: Of the baseline, of shape (C,).
        full: Of the image, of shape (C,).
    """
    total = full - empty
    if coalitions.shape[1] == 1:
        return total[None]
    visible = coalitions.astype(float)
    root = np.sqrt(weights)[:, None]
    inputs = visible[:, :-1] - visible[:, -1:]
    targets = values - empty - visible[:, -1:] * total
    # Not the normal equations: lstsq does not square the condition number, and returns the
    # solution of least norm if the samples are too few.
    others = np.linalg.lstsq(root * inputs, root * targets, rcond=None)[0]
    return np.vstack([others, total - others.sum(axis=0)])
