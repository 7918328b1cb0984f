"""Shapley values of superpixels: the mean change of a class's score over all orders.

A coalition is a row of booleans, one per superpixel: visible, or replaced by the baseline.
"""

import itertools
import math
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Coalitions: TypeAlias = npt.NDArray[np.bool_]
Values: TypeAlias = npt.NDArray[np.float64]

# Draws per new coalition before the sampler stops: most coalitions have been drawn then.
MAX_DRAWS = 4


class Sample(NamedTuple):
    """Coalitions and their weights in the regression."""

    coalitions: Coalitions
    """Of shape (S, M), all different, without the empty and the full one."""

    weights: Values
    """Of shape (S,), positive, with the sum 1."""


def all_coalitions(segments: int) -> Coalitions:
    """Return all coalitions (2**M, M); the bits of a row's number are its members."""
    numbers = np.arange(2**segments)[:, None]
    return (numbers >> np.arange(segments) & 1).astype(bool)


def exact(values: Values) -> Values:
    """Return Shapley values (M, C) by their definition (Shapley 1953).

    Args:
        values: Of every coalition, of shape (2**M, C), in the order of `all_coalitions`.
    """
    segments = int(values.shape[0]).bit_length() - 1
    numbers = np.arange(len(values))
    sizes = np.bitwise_count(numbers)
    shapley = np.empty((segments, values.shape[1]))
    for segment in range(segments):
        without = numbers[(numbers >> segment & 1) == 0]
        gains = values[without | 1 << segment] - values[without]
        orders = np.array([1 / (segments * math.comb(segments - 1, s)) for s in sizes[without]])
        shapley[segment] = orders @ gains
    return shapley


def sample(segments: int, count: int, rng: np.random.Generator) -> Sample:
    """Choose about `count` coalitions by the Shapley kernel (Lundberg & Lee 2017).

    The kernel gives all coalitions of s members together the weight (M - 1) / (s (M - s)): the
    smallest and the largest weigh most. These sizes are enumerated, from the extremes to the
    middle, as long as `count` suffices. The other sizes are drawn, each coalition with its
    complement, so that their errors cancel (Covert & Lee 2021).
    """
    sizes = list(range(1, segments // 2 + 1))
    kernel_weights = {size: _kernel_weight(segments, size) for size in sizes}
    total = sum(kernel_weights.values())
    rows: list[Coalitions] = []
    weights: list[float] = []
    while sizes:
        size = sizes[0]
        number = math.comb(segments, size) * (1 if 2 * size == segments else 2)
        remaining = sum(kernel_weights[size] for size in sizes)
        if number > (count - len(rows)) * kernel_weights[size] / remaining + 1e-9:
            break
        rows += _all_of_size(segments, size)
        weights += [kernel_weights[size] / total / number] * number
        sizes.pop(0)
    if sizes and count > len(rows):
        remaining = sum(kernel_weights[size] for size in sizes)
        probabilities = {size: kernel_weights[size] / remaining for size in sizes}
        drawn = _draw(segments, probabilities, count - len(rows), rng)
        draws = sum(drawn.values())
        rows += [np.frombuffer(key, dtype=bool) for key in drawn]
        weights += [times / draws * remaining / total for times in drawn.values()]
    return Sample(np.array(rows), np.array(weights) / sum(weights))


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


def _kernel_weight(segments: int, size: int) -> float:
    """Return the kernel's weight of all coalitions of `size` and of `segments - size` members."""
    return (1 if 2 * size == segments else 2) * (segments - 1) / (size * (segments - size))


def _all_of_size(segments: int, size: int) -> list[Coalitions]:
    """Return all coalitions of `size` and of `segments - size` members."""
    rows = []
    for members in itertools.combinations(range(segments), size):
        row = np.zeros(segments, dtype=bool)
        row[list(members)] = True
        rows.append(row)
    return rows if 2 * size == segments else rows + [~row for row in rows]


def _draw(
    segments: int, probabilities: dict[int, float], count: int, rng: np.random.Generator
) -> dict[bytes, int]:
    """Draw up to `count` different coalitions in pairs; return how often each was drawn."""
    sizes = rng.choice(list(probabilities), size=MAX_DRAWS * count, p=list(probabilities.values()))
    drawn: dict[bytes, int] = {}
    for size in sizes:
        row = np.zeros(segments, dtype=bool)
        row[rng.choice(segments, size, replace=False)] = True
        for key in (row.tobytes(), (~row).tobytes()):
            drawn[key] = drawn.get(key, 0) + 1
        if len(drawn) >= count:
            break
    return drawn
