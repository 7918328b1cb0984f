"""The rule on time: whether anything happens."""

import itertools
from collections.abc import Sequence

from container.debugger.rules.finding import Finding, Violation


def stalled_training(times: Sequence[tuple[int, float]], *, threshold: float = 1800.0) -> Finding:
    """Judge the seconds between records, each given by its step and time."""
    violations = [
        Violation(
            step=step,
            tensor="all",
            value=after - before,
            sentence=f"nothing was recorded for {after - before:.4g} seconds before step {step}; "
            f"{threshold:g} may be",
            cause="the loader, the disk or another process of the job let the training wait",
            remedy="look at the system's figures of that time: disk, network, processors",
        )
        for (_, before), (step, after) in itertools.pairwise(times)
        if after - before > threshold
    ]
    return Finding(len(times), violations, lacks="" if len(times) > 1 else "two records")
