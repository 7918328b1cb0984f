"""The schedule of the learning rate."""

import math

# Share of the steps in which the learning rate rises.
WARM_UP = 0.2


def one_cycle(step: int, total_steps: int) -> float:
    """Return the share of the peak learning rate at `step` (Smith 2018).

    It rises over the first fifth of the steps, then falls to zero along half a cosine.
    """
    progress = (step + 1) / (total_steps + 1)
    if progress < WARM_UP:
        return progress / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))
