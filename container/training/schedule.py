"""The learning rate: its schedule over the steps, and a range test for its peak."""

import math
from collections.abc import Callable

import numpy as np

from container.debugger.reading.records import LearningRate

# Fraction of the steps in which the learning rate rises.
WARM_UP = 0.2

# Fraction of its peak above which the learning rate is high: it raises the loss temporarily.
HIGH = 0.1

# Of the range test.
SEARCH_STEPS = 100
LOWEST_RATE, HIGHEST_RATE = 1e-6, 10.0

# Of the moving average of the loss, which varies between batches.
SMOOTHING = 0.9

# The search ends when the loss exceeds this multiple of its minimum.
DIVERGED = 4.0

# The result is the rate of the least loss divided by this: there the loss still falls steeply.
MARGIN = 10.0


def one_cycle(step: int, total_steps: int) -> float:
    """Return the learning rate at `step` as a fraction of its peak (Smith 2018).

    It rises over the first fifth of the steps, then falls to zero along half a cosine.
    """
    return one_cycle_at((step + 1) / (total_steps + 1))


def one_cycle_at(progress: float) -> float:
    """Return the learning rate as a fraction of its peak after a fraction of the run."""
    if progress < WARM_UP:
        return progress / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))


def phase(progress: float) -> LearningRate:
    """Return whether the learning rate rises, is above a tenth of its peak, or below."""
    if progress < WARM_UP:
        return "rising"
    return "high" if one_cycle_at(progress) > HIGH else "low"


def find_peak(loss_at: Callable[[int, float], float]) -> float:
    """Return the peak learning rate: a range test increases it until the loss does (Smith 2015).

    Args:
        loss_at: Makes a step, given its number and the learning rate, and returns its loss.
    """
    mean, least, best = 0.0, math.inf, LOWEST_RATE
    for number, rate in enumerate(np.geomspace(LOWEST_RATE, HIGHEST_RATE, SEARCH_STEPS).tolist()):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss_at(number, rate)
        # Corrects the bias of an average that starts at zero.
        loss = mean / (1 - SMOOTHING ** (number + 1))
        if not loss <= DIVERGED * least:
            break
        if loss < least:
            least, best = loss, rate
    return max(best / MARGIN, LOWEST_RATE)
