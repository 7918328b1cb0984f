"""A search for the learning rate: let it grow until the loss does (Smith 2015)."""

import math
from collections.abc import Callable

import numpy as np

STEPS = 100
LOWEST, HIGHEST = 1e-6, 10.0

# Of the running mean of the loss, which batches shake.
SMOOTHING = 0.9

# A loss so many times the least one is lost.
DIVERGED = 4.0

# Below the rate of the least loss, where it still falls steeply.
MARGIN = 10.0


def search(loss_at: Callable[[int, float], float]) -> float:
    """Return the learning rate to train with at its peak.

    Args:
        loss_at: Makes a step, given its number and the learning rate, and returns its loss.
    """
    rates = np.geomspace(LOWEST, HIGHEST, STEPS)
    mean, least, best = 0.0, math.inf, LOWEST
    for number, rate in enumerate(rates):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss_at(number, float(rate))
        # The mean starts from zero: without the correction it would only rise.
        loss = mean / (1 - SMOOTHING ** (number + 1))
        if not loss <= DIVERGED * least:
            break
        if loss < least:
            least, best = loss, float(rate)
    return max(best / MARGIN, LOWEST)
