"""Which super-pixels are shown together: all sets of few, a well-chosen sample of the sets of many.

A coalition is a row of booleans, one a super-pixel: shown, or hidden behind the baseline.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Members = npt.NDArray[np.bool_]

# Draws for one new coalition, before it is believed that hardly any is left.
MAX_DRAWS = 4


class Sample(NamedTuple):
    """Coalitions and what each counts in the regression."""

    members: Members
    """Of shape (S, M), all different; neither the empty one nor the full one."""

    weights: npt.NDArray[np.float64]
    """Of shape (S,), positive; their sum is 1."""


def every(segments: int) -> Members:
    """Return all coalitions (2**M, M); the number of each one's row has its members as bits."""
    numbers = np.arange(2**segments)[:, None]
    return (numbers >> np.arange(segments) & 1).astype(bool)


def sample(segments: int, count: int, rng: np.random.Generator) -> Sample:
    """Choose about `count` coalitions by the Shapley kernel (Lundberg & Lee 2017).

    The kernel gives all coalitions of s members together the weight (M - 1) / (s (M - s)): the
    smallest and the largest count most. Those sizes are taken whole, from the ends inwards, for
    as long as `count` suffices; the sizes between are drawn, each coalition with its complement,
    so that the error in one is taken back by the other (Covert & Lee 2021).
    """
    sizes = list(range(1, segments // 2 + 1))
    share = {size: _share(segments, size) for size in sizes}
    whole = sum(share.values())
    rows: list[Members] = []
    weights: list[float] = []
    while sizes:
        size = sizes[0]
        number = math.comb(segments, size) * (1 if 2 * size == segments else 2)
        left = sum(share[size] for size in sizes)
        if number > (count - len(rows)) * share[size] / left + 1e-9:
            break
        rows += _all_of_size(segments, size)
        weights += [share[size] / whole / number] * number
        sizes.pop(0)
    if sizes and count > len(rows):
        left = sum(share[size] for size in sizes)
        drawn = _draw(
            segments, {size: share[size] / left for size in sizes}, count - len(rows), rng
        )
        draws = sum(drawn.values())
        rows += [np.frombuffer(key, dtype=bool) for key in drawn]
        weights += [times / draws * left / whole for times in drawn.values()]
    return Sample(np.array(rows), np.array(weights) / sum(weights))


def _share(segments: int, size: int) -> float:
    """Return the kernel's weight of all coalitions of `size` and of `segments - size` members."""
    return (1 if 2 * size == segments else 2) * (segments - 1) / (size * (segments - size))


def _all_of_size(segments: int, size: int) -> list[Members]:
    rows = []
    for chosen in itertools.combinations(range(segments), size):
        row = np.zeros(segments, dtype=bool)
        row[list(chosen)] = True
        rows.append(row)
    return rows if 2 * size == segments else rows + [~row for row in rows]


def _draw(
    segments: int, shares: dict[int, float], count: int, rng: np.random.Generator
) -> dict[bytes, int]:
    """Draw up to `count` different coalitions in pairs; return how often each was drawn."""
    sizes = rng.choice(list(shares), size=MAX_DRAWS * count, p=list(shares.values()))
    drawn: dict[bytes, int] = {}
    for size in sizes:
        row = np.zeros(segments, dtype=bool)
        row[rng.choice(segments, size, replace=False)] = True
        for one in (row, ~row):
            drawn[one.tobytes()] = drawn.get(one.tobytes(), 0) + 1
        if len(drawn) >= count:
            break
    return drawn
