"""Rules on gradients that vanish and on tensors that are not finite."""

import math

from container.debugger.reading.records import GRADIENTS, LOSSES, WEIGHTS, Records
from container.debugger.rules import inputs
from container.debugger.rules.finding import Finding, Violation
from container.debugger.rules.rule import rule

# A layer's gradients vanish relative to those of the others: in a network that has learned its
# images all gradients are small.
SMALL_SHARE = 1e-3


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
            point.value < threshold and point.value <= SMALL_SHARE * largest.get(point.order, 0.0)
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
    """Find tensors with NaN or infinite values."""
    pattern = inputs.patterns(collection_names, tensor_regex) or [LOSSES, GRADIENTS, WEIGHTS]
    count, violations = 0, []
    for name in records.names(pattern, records.training):
        is_finite = True
        for record in records.of(name, records.training):
            # Each of them reveals it, and not all need be recorded.
            reductions = map(record.reduction, ("min", "max", "mean", "l2", "abs_mean"))
            known = [value for value in reductions if value is not None]
            count += bool(known)
            # The first value that is not finite decides, as its kind differs by reduction.
            worst = next((value for value in known if not math.isfinite(value)), 0.0)
            if is_finite and (math.isnan(worst) or (math.isinf(worst) and not only_nan)):
                is_finite = False
                violations.append(Violation(record.step, name, worst, f"it contains {worst}"))
    return Finding(count, violations, lacks="" if count else "any tensor")
