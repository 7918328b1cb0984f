"""Rules on what a tensor's values are: all zero, or of a variance that is out of bounds."""

from collections.abc import Mapping, Sequence

from container.debugger.reading.records import Point
from container.debugger.rules.finding import Finding, Violation
from container.debugger.rules.gradients import FIRST


def all_zero(zeros: Mapping[str, Sequence[Point]], *, threshold: float = 100.0) -> Finding:
    """Judge the share of zeros in tensors, as a share of 1; the first record is left out."""
    later = {name: points[FIRST:] for name, points in zeros.items() if len(points) > FIRST}
    violations = []
    for name, points in later.items():
        last = points[-1]
        if all(100 * point.value >= threshold for point in points):
            violations.append(
                Violation(
                    step=last.step,
                    tensor=name,
                    value=100 * last.value,
                    sentence=f"{100 * last.value:.3g} % of its values are zero, as in every record",
                    cause="the layers behind it pass nothing back: dead ReLUs or zero weights",
                    remedy="start from random or pretrained weights; lower learning_rate",
                )
            )
    count = sum(map(len, later.values()))
    return Finding(count, violations, lacks="" if count else "a tensor at two steps")


def tensor_variance(
    variances: Mapping[str, Sequence[Point]],
    *,
    max_threshold: float | None = None,
    min_threshold: float | None = None,
) -> Finding:
    """Judge the variance of tensors by the limits that are given; by default none is."""
    if max_threshold is None and min_threshold is None:
        return Finding(0, lacks="max_threshold or min_threshold")
    violations = []
    for name, points in variances.items():
        for point in points:
            is_large = max_threshold is not None and point.value > max_threshold
            is_small = min_threshold is not None and point.value < min_threshold
            if is_large or is_small:
                limit = max_threshold if is_large else min_threshold
                violations.append(
                    Violation(
                        step=point.step,
                        tensor=name,
                        value=point.value,
                        sentence=f"its variance is {point.value:.3g}, and {limit:g} is the "
                        f"{'most' if is_large else 'least'}",
                        cause="the layer's scale has grown away from the others'"
                        if is_large
                        else "the layer's values are nearly all alike",
                        remedy="lower learning_rate, or raise weight_decay"
                        if is_large
                        else "look at the initialization and at VanishingGradient",
                    )
                )
                break
    count = sum(map(len, variances.values()))
    return Finding(count, violations, lacks="" if count else "any tensor")
