"""The schedule of the learning rate over the steps."""

import math

from container.debugger.reading.records import LearningRate

# Fraction of the steps in which the learning rate rises.
WARM_UP = 0.2

# Fraction of its peak above which the learning rate is high: it raises the loss temporarily.
HIGH = 0.1


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
