"""Rules on what layers put in and out: dead, saturated or badly initialized ones."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from container.debugger.reading.records import Point
from container.debugger.rules.finding import Finding, Violation
from container.debugger.rules.losses import loss_not_decreasing

# Records that are judged together: each is of a few images.
LAST = 10

# The first record is of weights that have seen nothing.
FIRST = 1

# From the middle of a normal distribution to its 5th and to its 95th percentile, in deviations.
NINETY_PERCENT = 3.29

Arrays = Sequence[tuple[int, npt.NDArray[np.float64]]]
"""Steps, and what was recorded at them."""


def dead_relu(
    activities: Mapping[str, Arrays],
    *,
    threshold_inactivity: float = 1.0,
    threshold_layer: float = 50.0,
) -> Finding:
    """Judge in what share of places each unit (C,) of every ReLU is above zero.

    A unit is dead that is so in less than `threshold_inactivity` per cent over the last records.
    """
    violations = []
    for name, records in activities.items():
        last = [values for _, values in records[FIRST:][-LAST:]]
        if not last:
            continue
        mean = np.mean(last, axis=0)
        dead = 100 * float((100 * mean < threshold_inactivity).mean())
        if dead > threshold_layer:
            violations.append(
                Violation(
                    step=records[-1][0],
                    tensor=name,
                    value=dead,
                    sentence=f"{dead:.3g} % of its units are above zero for less than "
                    f"{threshold_inactivity:g} % of what they see; {threshold_layer:g} % may be",
                    cause="the weights or biases began too far below zero, or a step that was too "
                    "large threw them there",
                    remedy="divide learning_rate by 10; begin with random weights and zero biases, "
                    "or with batch normalization before the ReLU",
                )
            )
    count = sum(max(len(records) - FIRST, 0) for records in activities.values())
    return Finding(count, violations, lacks="" if count else "activations of two steps")


def saturated_activation(
    inputs: Mapping[str, Arrays],
    *,
    threshold_tanh_min: float = -9.4999,
    threshold_tanh_max: float = 9.4999,
    threshold_sigmoid_min: float = -23.0,
    threshold_sigmoid_max: float = 16.99999,
    threshold_inactivity: float = 1.0,
    threshold_layer: float = 50.0,
) -> Finding:
    """Judge the inputs (N, C, ...) of tanh and sigmoid layers, told apart by their names.

    A unit is saturated that is out of bounds for more than `threshold_inactivity` per cent of what
    it sees in the last record.
    """
    violations = []
    for name, records in inputs.items():
        step, values = records[-1]
        low, high = (
            (threshold_tanh_min, threshold_tanh_max)
            if "tanh" in name
            else (threshold_sigmoid_min, threshold_sigmoid_max)
        )
        others = tuple(axis for axis in range(values.ndim) if axis != 1)
        out = ((values < low) | (values > high)).mean(axis=others)
        saturated = 100 * float((100 * out > threshold_inactivity).mean())
        if saturated > threshold_layer:
            violations.append(
                Violation(
                    step=step,
                    tensor=name,
                    value=saturated,
                    sentence=f"{saturated:.3g} % of its units get less than {low:g} or more than "
                    f"{high:g}, where nothing changes any more; {threshold_layer:g} % may be",
                    cause="the weights before it are too large",
                    remedy="lower learning_rate, raise weight_decay, or put batch normalization "
                    "before it",
                )
            )
    return Finding(
        sum(map(len, inputs.values())),
        violations,
        lacks="" if inputs else "inputs of a tanh or sigmoid layer",
    )


def poor_weight_initialization(
    variances: Mapping[str, Sequence[Point]],
    deviations: Mapping[str, Sequence[Point]],
    losses: Sequence[Point],
    *,
    threshold: float = 10.0,
    distribution_range: float = 0.001,
    patience: int = 5,
    steps: int = 10,
) -> Finding:
    """Judge the variances of what activations get, and the gradients' deviations, at the start.

    Only where the loss does not fall: residual networks that learn well have layers whose
    variances differ more than by `threshold`. Twice `patience` losses are compared with as many.
    Variances are those of the first record: what comes later a learning rate may have done. The
    first `steps` records of gradients count, and the first of all does not, as a new head's
    weights are zero then.
    """
    if not variances and not deviations:
        return Finding(0, lacks="inputs of ReLUs, or gradients")
    learning = loss_not_decreasing(losses, num_steps=2 * patience)
    if learning.lacks:
        return Finding(0, lacks=learning.lacks)
    found = []
    early = {name: points[:FIRST] for name, points in variances.items()}
    worst = _widest(early)
    count = sum(map(len, early.values())) + sum(len(p[:steps]) for p in deviations.values())
    if not learning.violations:
        return Finding(count)
    if worst is not None and worst[1] > threshold:
        point, ratio, name = worst
        found.append(
            _poor(
                point.step,
                name,
                ratio,
                f"what activations get varies {ratio:.3g} times as much in one layer as in "
                f"another; {threshold:g} times may be",
            )
        )
    spans = [
        (max(points[FIRST:][: steps - FIRST], key=lambda p: p.value, default=None), name)
        for name, points in deviations.items()
    ]
    known = [(point, name) for point, name in spans if point is not None]
    if known:
        point, name = max(known, key=lambda pair: pair[0].value)
        if NINETY_PERCENT * point.value < distribution_range:
            found.append(
                _poor(
                    point.step,
                    name,
                    NINETY_PERCENT * point.value,
                    f"the widest layer's gradients lie within {NINETY_PERCENT * point.value:.3g}, "
                    f"and {distribution_range:g} is the least",
                )
            )
    return Finding(count, found)


def _widest(variances: Mapping[str, Sequence[Point]]) -> tuple[Point, float, str] | None:
    """Return the largest ratio of two layers' variances in a step, with the larger one's layer."""
    by_order: dict[int, list[tuple[Point, str]]] = {}
    for name, points in variances.items():
        for point in points:
            by_order.setdefault(point.order, []).append((point, name))
    widest: tuple[Point, float, str] | None = None
    for layers in by_order.values():
        high, name = max(layers, key=lambda layer: layer[0].value)
        low, _ = min(layers, key=lambda layer: layer[0].value)
        ratio = high.value / max(low.value, float(np.finfo(np.float32).tiny))
        if widest is None or ratio > widest[1]:
            widest = high, ratio, name
    return widest


def _poor(step: int, tensor: str, value: float, sentence: str) -> Violation:
    return Violation(
        step=step,
        tensor=tensor,
        value=value,
        sentence=f"{sentence}; and the loss does not fall",
        cause="the weights were initialized with a wrong scale, or all alike",
        remedy="start from pretrained weights, or from torchvision's own initialization",
    )
