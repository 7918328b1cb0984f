"""Rules on weights: their updates and the values of tensors."""

import math
from collections.abc import Sequence

from container.debugger.reading.records import GRADIENTS, WEIGHTS, Point, Records
from container.debugger.rules import inputs
from container.debugger.rules.rule import Finding, Violation, rule

# Two records with equal reductions hold the same tensor.
COMPARED = ("min", "max", "mean", "std", "abs_mean", "l2")


@rule("WeightUpdateRatio")
def weight_update_ratio(
    records: Records,
    *,
    num_steps: int | None = None,
    large_threshold: float = 10.0,
    small_threshold: float = 1e-8,
    epsilon: float = 1e-9,
) -> Finding:
    """Find weights that a step changes far too much, or hardly at all.

    The ratio is the norm of a step's change to the norm of the weights, as recorded around one
    step. Without these records, it is computed from whole tensors `num_steps` apart, as AWS's. The
    first record is excluded.
    """
    ratios = inputs.series(records, ["^update_ratio/"], "mean", without_biases=True)
    if not ratios:
        for name in records.names(WEIGHTS, records.training):
            ratios[name] = inputs.update_ratios(records, name, num_steps or 1, epsilon)
    later = inputs.without_first(ratios)
    violations = []
    for name, points in later.items():
        known = [point for point in points if math.isfinite(point.value)]
        large = [point for point in known if point.value > large_threshold]
        if large:
            point, limit = large[-1], f"above {large_threshold:g}"
            size, factor = "high", "divide"
        elif known and all(point.value < small_threshold for point in known):
            point, limit = known[-1], f"below {small_threshold:g}"
            size, factor = "low", "multiply"
        else:
            continue
        sentence = (
            f"the ratio of a step's change to the weights' norm is {point.value:.3g}, {limit}"
        )
        cause = f"the learning rate is far too {size} for this layer"
        remedy = f"{factor} learning_rate by 10"
        violations.append(Violation(point.step, name, point.value, sentence, cause, remedy))
    count = sum(map(len, later.values()))
    return Finding(count, violations, lacks="" if count else "weights around two steps or more")


@rule(
    "UnchangedTensor",
    cause="the learning rate is zero or far too low, or there is no gradient",
    remedy="raise learning_rate, or leave it unset; check VanishingGradient",
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
    """Find trainable weights that stay the same in the last `num_steps` records.

    A weight without a gradient in a record is frozen then, so that the record is excluded.
    """

    def is_close(first: Sequence[float], second: Sequence[float]) -> bool:
        return all(
            abs(a - b) <= atol + rtol * abs(b) or (equal_nan and math.isnan(a) and math.isnan(b))
            for a, b in zip(first, second, strict=True)
        )

    pattern = inputs.patterns(collection_names, tensor_regex) or [WEIGHTS]
    has_gradients = bool(records.names(GRADIENTS, records.training))
    count, violations = 0, []
    for name in records.names(pattern, records.training):
        trained = {record.order for record in records.of(f"gradient/{name}", records.training)}
        found = []
        for record in records.of(name, records.training):
            if record.order in trained or not has_gradients:
                reductions = map(record.reduction, COMPARED)
                known = [value for value in reductions if value is not None]
                found += [(record.step, known)] if known else []
        if len(found) < num_steps:
            continue
        count += len(found)
        last = found[-num_steps:]
        if all(is_close(last[0][1], values) for _, values in last[1:]):
            step, values = last[-1]
            sentence = f"it is the same at steps {', '.join(str(step) for step, _ in last)}"
            violations.append(Violation(step, name, values[0], sentence))
    return Finding(count, violations, lacks="" if count else f"{num_steps} records of a tensor")


@rule(
    "AllZero",
    cause="later layers pass no gradient back: dead ReLUs or zero weights",
    remedy="start from random or pretrained weights; lower learning_rate",
)
def all_zero(
    records: Records,
    *,
    collection_names: str | None = None,
    tensor_regex: str | None = None,
    threshold: float = 100.0,
) -> Finding:
    """Find tensors that are zero in `threshold` percent of their values, except at first."""
    pattern = inputs.patterns(collection_names, tensor_regex) or [GRADIENTS, WEIGHTS]
    zeros = inputs.series(records, pattern, "zeros", without_biases=not tensor_regex)
    later = inputs.without_first(zeros)
    violations = [
        Violation(
            points[-1].step,
            name,
            100 * points[-1].value,
            f"{100 * points[-1].value:.3g} % of its values are zero, as in every record",
        )
        for name, points in later.items()
        if all(100 * point.value >= threshold for point in points)
    ]
    count = sum(map(len, later.values()))
    return Finding(count, violations, lacks="" if count else "a tensor at two steps")


@rule("TensorVariance", needs_limits=True)
def tensor_variance(
    records: Records,
    *,
    collection_names: str | None = None,
    tensor_regex: str | None = None,
    max_threshold: float | None = None,
    min_threshold: float | None = None,
) -> Finding:
    """Find tensors whose variance is out of bounds."""
    pattern = inputs.patterns(collection_names, tensor_regex) or [GRADIENTS, WEIGHTS]
    variances = inputs.series(records, pattern, "variance")
    for name, points in inputs.series(records, pattern, "std").items():
        variances.setdefault(name, [Point(p.order, p.step, p.value**2) for p in points])
    if max_threshold is None and min_threshold is None:
        return Finding(0, lacks="max_threshold or min_threshold")
    violations = []
    for name, points in variances.items():
        for point in points:
            if max_threshold is not None and point.value > max_threshold:
                limit = f"the maximum is {max_threshold:g}"
                cause = "the layer's scale has grown far beyond the others'"
                remedy = "lower learning_rate, or raise weight_decay"
            elif min_threshold is not None and point.value < min_threshold:
                limit = f"the minimum is {min_threshold:g}"
                cause = "the layer's values are nearly equal"
                remedy = "check the initialization, and VanishingGradient"
            else:
                continue
            sentence = f"its variance is {point.value:.3g}; {limit}"
            violations.append(Violation(point.step, name, point.value, sentence, cause, remedy))
            break
    count = sum(map(len, variances.values()))
    return Finding(count, violations, lacks="" if count else "any tensor")
