"""AWS's rules on what layers hold and answer, with their parameters and defaults."""

import numpy as np

from container.debugger.reading.records import GRADIENTS, LOSSES, WEIGHTS, Point, Records
from container.debugger.rules import activations, gradients, inputs, values
from container.debugger.rules.finding import Finding

UNCHANGED = ("min", "max", "mean", "std", "abs_mean", "l2")


def vanishing_gradient(records: Records, *, threshold: float = 1e-7) -> Finding:
    """Find gradients that die on their way to the first layers."""
    series = inputs.series(records, [GRADIENTS], "abs_mean", without_biases=True)
    return gradients.vanishing_gradient(series, threshold=threshold)


def exploding_tensor(
    records: Records,
    *,
    collection_names: str | None = None,
    tensor_regex: str | None = None,
    only_nan: bool = False,
) -> Finding:
    """Find a tensor that holds what is no number."""
    pattern = inputs.patterns(collection_names, tensor_regex) or [LOSSES, GRADIENTS, WEIGHTS]
    found: dict[str, list[Point]] = {}
    for name in records.names(pattern, records.training):
        for record in records.of(name, records.training):
            # Any of them tells, and not all need be recorded.
            known = [record.reduction(kind) for kind in ("min", "max", "mean", "l2", "abs_mean")]
            numbers = [value for value in known if value is not None]
            if numbers:
                worst = next((v for v in numbers if not np.isfinite(v)), numbers[0])
                found.setdefault(name, []).append(Point(record.order, record.step, worst))
    return gradients.exploding_tensor(found, only_nan=only_nan)


def poor_weight_initialization(
    records: Records,
    *,
    activation_inputs_regex: str = ".*relu_input",
    threshold: float = 10.0,
    distribution_range: float = 0.001,
    patience: int = 5,
    steps: int = 10,
) -> Finding:
    """Find layers that began on scales that don't fit, where nothing is learned."""
    if inputs.is_trained(records):
        return Finding(0, lacks="a network that starts untrained")
    return activations.poor_weight_initialization(
        inputs.series(records, [activation_inputs_regex], "variance"),
        inputs.series(records, [GRADIENTS], "std", without_biases=True),
        records.losses(records.training),
        threshold=threshold,
        distribution_range=distribution_range,
        patience=patience,
        steps=steps,
    )


def dead_relu(
    records: Records,
    *,
    tensor_regex: str = ".*relu_output",
    threshold_inactivity: float = 1.0,
    threshold_layer: float = 50.0,
) -> Finding:
    """Find ReLUs that answer to nothing any more."""
    active = {
        name: [(step, inputs.active(values)) for step, values in arrays]
        for name, arrays in inputs.arrays(records, [tensor_regex]).items()
    }
    if not active:
        active = inputs.arrays(records, [".*relu_activity"])
    return activations.dead_relu(
        active, threshold_inactivity=threshold_inactivity, threshold_layer=threshold_layer
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
    """Find tanh and sigmoid units whose answer nothing changes any more."""
    return activations.saturated_activation(
        inputs.arrays(records, inputs.patterns(collection_names, tensor_regex)),
        threshold_tanh_min=threshold_tanh_min,
        threshold_tanh_max=threshold_tanh_max,
        threshold_sigmoid_min=threshold_sigmoid_min,
        threshold_sigmoid_max=threshold_sigmoid_max,
        threshold_inactivity=threshold_inactivity,
        threshold_layer=threshold_layer,
    )


def weight_update_ratio(
    records: Records,
    *,
    num_steps: int | None = None,
    large_threshold: float = 10.0,
    small_threshold: float = 1e-8,
    epsilon: float = 1e-9,
) -> Finding:
    """Find weights that a step changes far too much, or next to nothing."""
    ratios = inputs.series(records, ["^update_ratio/"], "mean", without_biases=True)
    if not ratios:
        distance = num_steps or 1
        for name in records.names(WEIGHTS, records.training):
            points = inputs.ratios(records, name, distance, epsilon)
            if points:
                ratios[name] = points
    return gradients.weight_update_ratio(
        ratios, large_threshold=large_threshold, small_threshold=small_threshold
    )


def unchanged_tensor(
    records: Records,
    *,
    collection_names: str | None = None,
    tensor_regex: str | None = None,
    num_steps: int = 3,
    rtol: float = 1e-5,
    atol: float = 1e-8,
    equal_nan: bool = False,
) -> Finding:
    """Find weights that should learn and stay the same."""
    pattern = inputs.patterns(collection_names, tensor_regex) or [WEIGHTS]
    found: dict[str, list[tuple[int, list[float]]]] = {}
    for name in records.names(pattern, records.training):
        learning = inputs.learning_orders(records, name)
        for record in records.of(name, records.training):
            if learning is not None and record.order not in learning:
                continue
            values = [record.reduction(kind) for kind in UNCHANGED]
            known = [value for value in values if value is not None]
            if known:
                found.setdefault(name, []).append((record.step, known))
    return gradients.unchanged_tensor(
        found, num_steps=num_steps, rtol=rtol, atol=atol, equal_nan=equal_nan
    )


def all_zero(
    records: Records,
    *,
    collection_names: str | None = None,
    tensor_regex: str | None = None,
    threshold: float = 100.0,
) -> Finding:
    """Find a tensor of zeros."""
    pattern = inputs.patterns(collection_names, tensor_regex) or [GRADIENTS, WEIGHTS]
    zeros: dict[str, list[Point]] = {}
    for name in records.names(pattern, records.training):
        if inputs.NO_BIAS.search(name) and not tensor_regex:
            continue
        for record in records.of(name, records.training):
            share = record.reduction("zeros")
            mean = record.reduction("abs_mean")
            if share is None and mean is not None:
                # Of reductions alone only this is known.
                share = float(mean == 0)
            if share is not None:
                zeros.setdefault(name, []).append(Point(record.order, record.step, share))
    return values.all_zero(zeros, threshold=threshold)


def tensor_variance(
    records: Records,
    *,
    collection_names: str | None = None,
    tensor_regex: str | None = None,
    max_threshold: float | None = None,
    min_threshold: float | None = None,
) -> Finding:
    """Find a tensor whose variance is out of bounds."""
    pattern = inputs.patterns(collection_names, tensor_regex) or [GRADIENTS, WEIGHTS]
    variances = inputs.series(records, pattern, "variance")
    for name, points in inputs.series(records, pattern, "std").items():
        squares = [Point(p.order, p.step, p.value**2) for p in points]
        variances.setdefault(name, squares)
    return values.tensor_variance(
        variances, max_threshold=max_threshold, min_threshold=min_threshold
    )
