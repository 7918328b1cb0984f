"""Rules on gradients and weights by layer: whether they vanish, explode or stand still."""

import math
from collections.abc import Mapping, Sequence

from container.debugger.reading.records import Point
from container.debugger.rules.finding import Finding, Violation

# A layer's gradients vanish when those of others don't: in a network that has learned its images
# all are small alike.
SMALL_SHARE = 1e-3

# A new head's weights are zero in the first record, and so no gradient passes it.
FIRST = 1

Series = Mapping[str, Sequence[Point]]
"""By tensor."""


def vanishing_gradient(gradients: Series, *, threshold: float = 1e-7) -> Finding:
    """Judge the mean absolute gradients of weights; biases, which normalization may stop, are out.

    A layer is named in whose every record but the first the gradients are below the threshold and
    below a thousandth of the largest layer's.
    """
    later = {name: points[FIRST:] for name, points in gradients.items() if len(points) > FIRST}
    if not later:
        return Finding(0, lacks="gradients of two steps")
    largest: dict[int, float] = {}
    for points in later.values():
        for point in points:
            if math.isfinite(point.value):
                largest[point.order] = max(largest.get(point.order, 0.0), point.value)
    violations = []
    for name, points in later.items():
        if all(
            point.value < threshold and point.value <= SMALL_SHARE * largest.get(point.order, 0.0)
            for point in points
        ):
            last = points[-1]
            violations.append(
                Violation(
                    step=last.step,
                    tensor=name,
                    value=last.value,
                    sentence=f"the mean absolute gradient is {last.value:.3g}, below "
                    f"{threshold:g}, where the largest layer's is {largest[last.order]:.3g}",
                    cause="the gradient dies on its way to the first layers: saturated "
                    "activations, too many layers without residuals, or dead ReLUs",
                    remedy="take ReLU and batch normalization, or a network with residuals "
                    "(resnet18); start from pretrained weights",
                )
            )
    return Finding(sum(map(len, later.values())), violations)


def exploding_tensor(tensors: Series, *, only_nan: bool = False) -> Finding:
    """Judge whether sums of minimum and maximum are numbers, or at least no NaN."""
    violations = []
    for name, points in tensors.items():
        for point in points:
            bad = math.isnan(point.value) or (math.isinf(point.value) and not only_nan)
            if bad:
                violations.append(
                    Violation(
                        step=point.step,
                        tensor=name,
                        value=point.value,
                        sentence=f"it holds {point.value}",
                        cause="the learning rate is far too high, or the input holds no numbers",
                        remedy="divide learning_rate by 10, set gradient_clip_norm=1, or "
                        "precision=float32",
                    )
                )
                break
    count = sum(map(len, tensors.values()))
    return Finding(count, violations, lacks="" if count else "any tensor")


def weight_update_ratio(
    ratios: Series, *, large_threshold: float = 10.0, small_threshold: float = 1e-8
) -> Finding:
    """Judge by how much of their norm the weights change in a step, but for the first record."""
    later = {name: points[FIRST:] for name, points in ratios.items() if len(points) > FIRST}
    violations = []
    for name, points in later.items():
        known = [point for point in points if math.isfinite(point.value)]
        large = [point for point in known if point.value > large_threshold]
        if large:
            violations.append(_ratio(large[-1], name, large_threshold, is_large=True))
        elif known and all(point.value < small_threshold for point in known):
            violations.append(_ratio(known[-1], name, small_threshold, is_large=False))
    count = sum(map(len, later.values()))
    return Finding(count, violations, lacks="" if count else "weights around two steps or more")


def unchanged_tensor(
    tensors: Mapping[str, Sequence[tuple[int, Sequence[float]]]],
    *,
    num_steps: int = 3,
    rtol: float = 1e-5,
    atol: float = 1e-8,
    equal_nan: bool = False,
) -> Finding:
    """Judge whether tensors, each given by numbers at steps, stay the same in the last records."""
    judged = {name: records for name, records in tensors.items() if len(records) >= num_steps}
    violations = []
    for name, records in judged.items():
        last = records[-num_steps:]
        if all(
            _close(last[0][1], values, rtol=rtol, atol=atol, equal_nan=equal_nan)
            for _, values in last[1:]
        ):
            violations.append(
                Violation(
                    step=last[-1][0],
                    tensor=name,
                    value=last[-1][1][0],
                    sentence=f"it is the same at steps {', '.join(str(s) for s, _ in last)}",
                    cause="the learning rate is zero or far too low, or no gradient comes",
                    remedy="raise learning_rate, or leave it unset; look at VanishingGradient",
                )
            )
    count = sum(map(len, judged.values()))
    return Finding(count, violations, lacks="" if count else f"{num_steps} records of a tensor")


def _ratio(point: Point, name: str, threshold: float, *, is_large: bool) -> Violation:
    sign = "above" if is_large else "below"
    return Violation(
        step=point.step,
        tensor=name,
        value=point.value,
        sentence=f"a step changes {point.value:.3g} of the weights' norm, {sign} {threshold:g}",
        cause=f"the learning rate is far too {'high' if is_large else 'low'} for this layer",
        remedy=f"{'divide' if is_large else 'multiply'} learning_rate by 10, or set "
        "find_learning_rate=true",
    )


def _close(
    one: Sequence[float], other: Sequence[float], *, rtol: float, atol: float, equal_nan: bool
) -> bool:
    return all(
        abs(a - b) <= atol + rtol * abs(b) or (equal_nan and math.isnan(a) and math.isnan(b))
        for a, b in zip(one, other, strict=True)
    )
