"""A learning rate range test: increase the rate until the loss increases (Smith 2015)."""

import math
from collections.abc import Callable

import numpy as np

STEPS = 100
LOWEST, HIGHEST = 1e-6, 10.0

# Of the moving average of the loss, which varies between batches.
SMOOTHING = 0.9

# The search ends when the loss exceeds this multiple of its minimum.
DIVERGED = 4.0

# The result is the rate of the least loss divided by this: there the loss still falls steeply.
MARGIN = 10.0


def search(loss_at: Callable[[int, float], float]) -> float:
    """Return the peak learning rate to train with.

    Args:
        loss_at: Makes a step, given its number and the learning rate, and returns its loss.
    """
    rates = np.geomspace(LOWEST, HIGHEST, STEPS)
    mean, least, best = 0.0, math.inf, LOWEST
    for number, rate in enumerate(rates):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss_at(number, float(rate))
        # Corrects the bias of an average that starts at zero.
        loss = mean / (1 - SMOOTHING ** (number + 1))
        if not loss <= DIVERGED * least:
            break
        if loss < least:
            least, best = loss, float(rate)
    return max(best / MARGIN, LOWEST)
