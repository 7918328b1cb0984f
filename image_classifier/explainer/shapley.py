"""Shapley values of super-pixels: what each adds to a class's score, on average over all orders."""

import math

import numpy as np
import numpy.typing as npt

from image_classifier.explainer.coalitions import Members

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
    members: Members, weights: Values, values: Values, *, empty: Values, full: Values
) -> Values:
    """Return Shapley values (M, C) by KernelSHAP's regression (Lundberg & Lee 2017).

    The values' sum is exactly what the full image has more than the baseline: the last one is
    that minus the others, which leaves a least-squares problem without a condition.

    Args:
        members: Coalitions of shape (S, M).
        weights: Of shape (S,).
        values: Of shape (S, C).
        empty: Of the baseline alone, of shape (C,).
        full: Of the image, of shape (C,).
    """
    total = full - empty
    if members.shape[1] == 1:
        return total[None]
    shown = members.astype(float)
    root = np.sqrt(weights)[:, None]
    known = shown[:, :-1] - shown[:, -1:]
    wanted = values - empty - shown[:, -1:] * total
    # lstsq and not the normal equations: it has an answer for too few samples as well, the
    # shortest, and their condition number is not squared.
    others = np.linalg.lstsq(root * known, root * wanted, rcond=None)[0]
    return np.vstack([others, total - others.sum(axis=0)])
