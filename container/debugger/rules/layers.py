"""Rules on layers: their gradients, initialization and activations."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from container.debugger.reading.records import GRADIENTS, LOSSES, WEIGHTS, Mode, Point, Records
from container.debugger.rules import inputs
from container.debugger.rules.losses import loss_not_decreasing
from container.debugger.rules.rule import Finding, Violation, rule

# A layer's gradients vanish relative to those of the others: in a network that has learned its
# images all gradients are small.
SMALL_RATIO = 1e-3

# Records that are averaged: each is of a few images.
LAST = 10

# Standard deviations between the 5th and the 95th percentile of a normal distribution.
NINETY_PERCENT = 3.29


@rule(
    "VanishingGradient",
    cause="the gradient vanishes on the way to the first layers: saturated activations, too many "
    "layers without residual connections, or dead ReLUs",
    remedy="use ReLU and batch normalization, or a residual network (resnet18); start from "
    "pretrained weights",
)
def vanishing_gradient(records: Records, *, threshold: float = 1e-7) -> Finding:
    """Find layers whose gradients vanish.

    In every record except the first, the mean absolute gradient of a layer's weights is below the
    threshold and below a thousandth of the largest layer's. Biases are excluded, because
    normalization makes their gradients zero.
    """
    series = inputs.series(records, [GRADIENTS], "abs_mean", without_biases=True)
    later = inputs.without_first(series)
    if not later:
        return Finding(0, lacks="gradients of two steps")
    largest: dict[int, float] = {}
    for points in later.values():
        for point in points:
            if math.isfinite(point.value):
                largest[point.order] = max(largest.get(point.order, 0.0), point.value)
    violations = []
    for name, points in later.items():
        last = points[-1]
        if all(
            point.value < threshold and point.value <= SMALL_RATIO * largest.get(point.order, 0.0)
            for point in points
        ):
            sentence = (
                f"the mean absolute gradient is {last.value:.3g}, below {threshold:g}; the largest "
                f"layer's is {largest[last.order]:.3g}"
            )
            violations.append(Violation(last.step, name, last.value, sentence))
    return Finding(sum(map(len, later.values())), violations)


@rule(
    "ExplodingTensor",
    cause="the learning rate is far too high, or the input is not finite",
    remedy="divide learning_rate by 10, set gradient_clip_norm=1, or precision=float32",
)
def exploding_tensor(
    records: Records,
    *,
    collection_names: str | None = None,
    tensor_regex: str | None = None,
    only_nan: bool = False,
) -> Finding:
    """Find tensors with NaN or infinite values, the validation loss among them."""
    pattern = inputs.patterns(collection_names, tensor_regex) or [LOSSES, GRADIENTS, WEIGHTS]
    chosen: list[tuple[str, Mode]] = [
        *((name, records.training) for name in records.names(pattern, records.training)),
        *((name, "EVAL") for name in records.names(LOSSES, "EVAL")),
    ]
    count, violations = 0, []
    for name, mode in chosen:
        is_finite = True
        for record in records.of(name, mode):
            # Each of them reveals it, and not all need be recorded.
            reductions = map(record.reduction, ("min", "max", "mean", "l2", "abs_mean"))
            known = [value for value in reductions if value is not None]
            count += bool(known)
            # The first value that is not finite decides, as its kind differs by reduction.
            worst = next((value for value in known if not math.isfinite(value)), 0.0)
            if is_finite and (math.isnan(worst) or (math.isinf(worst) and not only_nan)):
                is_finite = False
                sentence = f"it contains {worst}"
                if mode == "EVAL":
                    sentence = f"the validation loss is {worst} at evaluation {record.step}"
                violations.append(Violation(record.step, name, worst, sentence))
    return Finding(count, violations, lacks="" if count else "any tensor")


@rule(
    "PoorWeightInitialization",
    cause="the weights were initialized with a wrong scale, or with equal values",
    remedy="start from pretrained weights, or from torchvision's own initialization",
)
def poor_weight_initialization(
    records: Records,
    *,
    activation_inputs_regex: str = ".*relu_input",
    threshold: float = 10.0,
    distribution_range: float = 0.001,
    patience: int = 5,
    steps: int = 10,
) -> Finding:
    """Find layers whose initial weights have a wrong scale, if the loss does not fall.

    Residual networks that learn well have layers whose variances differ by more than `threshold`;
    hence the condition. It compares twice `patience` losses with as many. The variances of
    activation inputs are those of the first record, because the learning rate affects later ones.
    The first `steps` records of gradients are used except the very first, as the weights of a new
    head are zero then.
    """
    if inputs.is_trained(records):
        return Finding(0, lacks="a network that starts untrained")
    variances = inputs.series(records, [activation_inputs_regex], "variance")
    deviations = inputs.series(records, [GRADIENTS], "std", without_biases=True)
    if not variances and not deviations:
        return Finding(0, lacks="inputs of ReLUs, or gradients")
    losses = loss_not_decreasing(records, num_steps=2 * patience)
    if losses.lacks:
        return Finding(0, lacks=losses.lacks)
    early = {name: points[: inputs.FIRST] for name, points in variances.items()}
    count = sum(map(len, early.values())) + sum(len(p[:steps]) for p in deviations.values())
    if not losses.violations:
        return Finding(count)
    violations = []
    widest = _widest(early)
    if widest is not None and widest[1] > threshold:
        point, ratio, name = widest
        sentence = (
            f"the variance of activation inputs differs {ratio:.3g}-fold between layers; the limit "
            f"is {threshold:g}; and the loss does not fall"
        )
        violations.append(Violation(point.step, name, ratio, sentence))
    largest = [
        (max(points[inputs.FIRST : steps], key=lambda point: point.value), name)
        for name, points in deviations.items()
        if points[inputs.FIRST : steps]
    ]
    if largest:
        point, name = max(largest, key=lambda pair: pair[0].value)
        width = NINETY_PERCENT * point.value
        if width < distribution_range:
            sentence = (
                f"90 % of the gradients of the widest layer are within a range of {width:.3g}; "
                f"the minimum is {distribution_range:g}; and the loss does not fall"
            )
            violations.append(Violation(point.step, name, width, sentence))
    return Finding(count, violations)


@rule(
    "DeadRelu",
    cause="the initial weights or biases were far below zero, or a step was too large",
    remedy="divide learning_rate by 10; start with random weights and zero biases, or use batch "
    "normalization before the ReLU",
)
def dead_relu(
    records: Records,
    *,
    tensor_regex: str = ".*relu_output",
    threshold_inactivity: float = 1.0,
    threshold_layer: float = 50.0,
) -> Finding:
    """Find layers in which too many ReLUs are dead.

    A unit is dead if its output is positive in less than `threshold_inactivity` percent of
    positions and images, over the last records.
    """
    outputs = inputs.arrays(records, [tensor_regex])
    activities = {
        name: [(step, inputs.unit_means(values > 0)) for step, values in arrays]
        for name, arrays in outputs.items()
    }
    activities = activities or inputs.arrays(records, [".*relu_activity"])
    violations = []
    for name, arrays in activities.items():
        last = [values for _, values in arrays[inputs.FIRST :][-LAST:]]
        if not last:
            continue
        mean = np.mean(last, axis=0)
        dead = 100 * float((100 * mean < threshold_inactivity).mean())
        if dead > threshold_layer:
            sentence = (
                f"{dead:.3g} % of its units are positive for less than {threshold_inactivity:g} % "
                f"of their inputs; the limit is {threshold_layer:g} %"
            )
            violations.append(Violation(arrays[-1][0], name, dead, sentence))
    count = sum(max(len(arrays) - inputs.FIRST, 0) for arrays in activities.values())
    return Finding(count, violations, lacks="" if count else "activations of two steps")


@rule(
    "SaturatedActivation",
    cause="the weights before it are too large",
    remedy="lower learning_rate, raise weight_decay, or use batch normalization before it",
)
def saturated_activation(
    records: Records,
    *,
    collection_names: str | None = None,
    tensor_regex: str = ".*tanh_input|.*sigmoid_input",
    threshold_tanh_min: float = -9.4999,
    threshold_tanh_max: float = 9.4999,
    threshold_sigmoid_min: float = -23.0,
    threshold_sigmoid_max: float = 16.99999,
    threshold_inactivity: float = 1.0,
    threshold_layer: float = 50.0,
) -> Finding:
    """Find layers in which too many tanh or sigmoid units are saturated.

    A unit is saturated if more than `threshold_inactivity` percent of its inputs in the last record
    are out of bounds.
    """
    found = inputs.arrays(records, inputs.patterns(collection_names, tensor_regex))
    violations = []
    for name, arrays in found.items():
        step, values = arrays[-1]
        low, high = (
            (threshold_tanh_min, threshold_tanh_max)
            if "tanh" in name
            else (threshold_sigmoid_min, threshold_sigmoid_max)
        )
        out = inputs.unit_means((values < low) | (values > high))
        saturated = 100 * float((100 * out > threshold_inactivity).mean())
        if saturated > threshold_layer:
            sentence = (
                f"{saturated:.3g} % of its units have inputs below {low:g} or above {high:g}, "
                f"where the output is constant; the limit is {threshold_layer:g} %"
            )
            violations.append(Violation(step, name, saturated, sentence))
    count = sum(map(len, found.values()))
    return Finding(count, violations, lacks="" if found else "inputs of a tanh or sigmoid layer")


def _widest(variances: Mapping[str, Sequence[Point]]) -> tuple[Point, float, str] | None:
    """Return the largest ratio of two layers' variances in a step, with the larger one's layer."""
    by_order: dict[int, list[tuple[Point, str]]] = {}
    for name, points in variances.items():
        for point in points:
            by_order.setdefault(point.order, []).append((point, name))
    ratios = []
    for layers in by_order.values():
        high, name = max(layers, key=lambda layer: layer[0].value)
        low = min(point.value for point, _ in layers)
        ratios.append((high, high.value / max(low, float(np.finfo(np.float32).tiny)), name))
    return max(ratios, key=lambda ratio: ratio[1], default=None)
