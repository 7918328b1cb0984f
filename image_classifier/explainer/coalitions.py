"""Coalitions of superpixels: all of them, or a sample by the Shapley kernel.

A coalition is a row of booleans, one per superpixel: visible, or replaced by the baseline.
"""

import itertools
import math
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Coalitions: TypeAlias = npt.NDArray[np.bool_]

# Draws per new coalition before the sampler stops: most coalitions have been drawn then.
MAX_DRAWS = 4


class Sample(NamedTuple):
    """Coalitions and their weights in the regression."""

    coalitions: Coalitions
    """Of shape (S, M), all different, without the empty and the full one."""

    weights: npt.NDArray[np.float64]
    """Of shape (S,), positive, with the sum 1."""


def every(segments: int) -> Coalitions:
    """Return all coalitions (2**M, M); the bits of a row's number are its members."""
    numbers = np.arange(2**segments)[:, None]
    return (numbers >> np.arange(segments) & 1).astype(bool)


def sample(segments: int, count: int, rng: np.random.Generator) -> Sample:
    """Choose about `count` coalitions by the Shapley kernel (Lundberg & Lee 2017).

    The kernel gives all coalitions of s members together the weight (M - 1) / (s (M - s)): the
    smallest and the largest weigh most. These sizes are enumerated, from the extremes to the
    middle, as long as `count` suffices. The other sizes are drawn, each coalition with its
    complement, so that their errors cancel (Covert & Lee 2021).
    """
    sizes = list(range(1, segments // 2 + 1))
    share = {size: _share(segments, size) for size in sizes}
    whole = sum(share.values())
    rows: list[Coalitions] = []
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
        shares = {size: share[size] / left for size in sizes}
        drawn = _draw(segments, shares, count - len(rows), rng)
        draws = sum(drawn.values())
        rows += [np.frombuffer(key, dtype=bool) for key in drawn]
        weights += [times / draws * left / whole for times in drawn.values()]
    return Sample(np.array(rows), np.array(weights) / sum(weights))


def _share(segments: int, size: int) -> float:
    """Return the kernel's weight of all coalitions of `size` and of `segments - size` members."""
    return (1 if 2 * size == segments else 2) * (segments - 1) / (size * (segments - size))


def _all_of_size(segments: int, size: int) -> list[Coalitions]:
    rows = []
    for members in itertools.combinations(range(segments), size):
        row = np.zeros(segments, dtype=bool)
        row[list(members)] = True
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
        for key in (row.tobytes(), (~row).tobytes()):
            drawn[key] = drawn.get(key, 0) + 1
        if len(drawn) >= count:
            break
    return drawn
