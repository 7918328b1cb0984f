"""Rules on losses.

The loss of a single batch is noisy. Where AWS compares one loss with another, these rules compare
means of `num_steps` records and require statistical significance.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from container.debugger.reading.records import LOSSES, Point, Records
from container.debugger.rules import inputs
from container.debugger.rules.rule import Finding, Violation, rule

# Standard errors from which a rise is significant.
SIGNIFICANT_RISE = 3.0

# Fewest windows: the learning rate is still warming up in the first one.
WINDOWS = 3

# Standard deviations of the Mann-Whitney U; two windows of five that don't overlap have 2.6.
SIGNIFICANT_FALL = 2.5

_TINY = 1e-12

Window = Sequence[Point]


@rule("LossNotDecreasing")
def loss_not_decreasing(
    records: Records,
    *,
    collection_names: str | None = None,
    tensor_regex: str | None = None,
    use_losses_collection: bool = True,
    num_steps: int = 10,
    diff_percent: float = 0.1,
    increase_threshold_percent: float = 5.0,
    mode: str = "TRAIN",
) -> Finding:
    """Find a loss that does not fall, or rises.

    It must fall by `diff_percent` in every `num_steps` records until the fall is significant. If
    the head was trained before the first step, the loss need not fall, but must not rise. While a
    training runs, nothing is found before the peak of the learning rate, and no rise before the
    rate is below a tenth of it: a high rate raises the loss temporarily.
    """
    if not use_losses_collection and not tensor_regex and not collection_names:
        return Finding(0, lacks="tensor_regex, because use_losses_collection is false")
    pattern = inputs.patterns(collection_names, tensor_regex) or [LOSSES]
    chosen = records.training if mode.upper() in {"TRAIN", "GLOBAL"} else "EVAL"
    losses = records.losses(chosen, pattern)
    windows: list[Window] = [losses[i : i + num_steps] for i in range(0, len(losses), num_steps)]
    if windows and len(windows[-1]) < num_steps:
        # The last records matter most.
        windows[-1] = losses[-num_steps:]
    if len(windows) < WINDOWS or len(losses) < WINDOWS * num_steps:
        return Finding(len(losses), lacks=f"{WINDOWS * num_steps} training losses")
    if records.learning_rate == "rising":
        return Finding(len(losses), lacks="losses after the warm-up of the learning rate")
    is_high = records.learning_rate == "high"
    violation = None if is_high else _rise(windows, increase_threshold_percent)
    if violation is None and not inputs.is_trained(records):
        violation = _missing_fall(losses, windows, diff_percent)
    if violation is None and is_high:
        return Finding(len(losses), lacks="losses at a low learning rate")
    return Finding(len(losses), [violation] if violation else [])


@rule(
    "Overfit",
    cause="the network memorizes the training images",
    remedy="set early_stopping_patience=3; more images, augmentation, weight_decay or mixup=0.2 "
    "also help; many wrong labels have the same effect",
)
def overfit(
    records: Records,
    *,
    tensor_regex: str | None = None,
    start_step: int = 0,
    patience: int = 1,
    ratio_threshold: float = 0.1,
) -> Finding:
    """Find a validation loss that rises while the training loss falls.

    Every network that fits its training images has a gap between the two, so this rule requires
    more than AWS's. The validation loss must be `ratio_threshold` above its minimum, and the
    training loss below its value then. The validation loss must not fall from one evaluation to the
    next, and never below that minimum again: with a cyclic learning rate it may rise temporarily.
    """
    pattern = inputs.patterns(None, tensor_regex) or [LOSSES]
    training = records.losses(records.training, pattern)
    pairs = _with_training_means(training, records.losses("EVAL", pattern))
    pairs = [pair for pair in pairs if pair[1].step >= start_step]
    if len(pairs) <= patience + 1:
        return Finding(len(pairs), lacks=f"{patience + 2} evaluations with training between")
    best, best_mean = math.inf, math.inf
    before, in_a_row = -math.inf, 0
    violations: list[Violation] = []
    for mean, point in pairs:
        if point.value < best:
            best, best_mean = point.value, mean
            violations.clear()
        ratio = (point.value - mean) / max(mean, _TINY)
        has_diverged = point.value > best * (1 + ratio_threshold) and mean < best_mean
        if not (has_diverged and ratio > ratio_threshold):
            in_a_row = 0
        else:
            in_a_row = in_a_row + 1 if point.value >= before else 1
        before = point.value
        if in_a_row > patience:
            sentence = (
                f"the validation loss {point.value:.4g} is {100 * ratio:.3g} % above the training "
                f"loss {mean:.4g} (limit {100 * ratio_threshold:g} %) and "
                f"{_percent(best, point.value):.3g} % above its minimum {best:.4g}"
            )
            violations.append(_violation(point, sentence, unit="evaluation"))
    return Finding(len(pairs), violations)


@rule("Overtraining", cause="the training continues although it no longer improves")
def overtraining(
    records: Records,
    *,
    patience_train: int = 5,
    patience_validation: int = 10,
    delta: float = 0.01,
) -> Finding:
    """Find a training that continues long after the loss has stopped falling by `delta`.

    The training loss is the mean between two evaluations. Without evaluations the rule finds
    nothing, because the training loss alone is too noisy. A network that has not learned yet does
    not count, unless its head was trained before the first step.
    """
    training, validation = records.losses(records.training), records.losses("EVAL")
    if len(validation) <= patience_validation:
        return Finding(len(validation), lacks=f"{patience_validation + 1} evaluations")
    pairs = _with_training_means(training, validation)
    means = [Point(point.order, point.step, mean) for mean, point in pairs]
    idle_validation, best = _since_improvement(validation, delta)
    idle_train, _ = _since_improvement(means, delta)
    # At any learning rate: what has not learned yet is not trained for too long.
    is_learning = not loss_not_decreasing(replace(records, learning_rate="low")).violations
    if idle_validation < patience_validation or not is_learning:
        return Finding(len(validation))
    also = f", the training loss for {idle_train}" if idle_train >= patience_train else ""
    violation = _violation(
        validation[-1],
        f"the validation loss has not fallen by {delta:g} below {best.value:.4g} of evaluation "
        f"{best.step} for {idle_validation} evaluations{also}; the limit is {patience_validation}",
        remedy=f"set epochs={max(best.step, 1)}, or early_stopping_patience=3",
        unit="evaluation",
    )
    return Finding(len(validation), [violation])


def _rise(windows: Sequence[Window], limit_percent: float) -> Violation | None:
    """Return a violation if the last window is significantly above the best one."""
    last = windows[-1]
    finite = [window for window in windows if math.isfinite(_mean(window))]
    best = min(finite, key=_mean, default=windows[0])
    risen = _percent(_mean(best), _mean(last))
    is_significant = risen > limit_percent and _standard_errors(best, last) > SIGNIFICANT_RISE
    if math.isfinite(_mean(last)) and not is_significant:
        return None
    return _violation(
        last[-1],
        f"the loss has risen by {risen:.3g} % from {_mean(best):.4g} at step {best[-1].step} to "
        f"{_mean(last):.4g}; the limit is {limit_percent:g} %",
        "the learning rate is too high, so that steps overshoot the minimum",
        "divide learning_rate by 10, or set gradient_clip_norm=1",
    )


def _missing_fall(losses: Window, windows: Sequence[Window], percent: float) -> Violation | None:
    """Return a violation unless the loss has fallen significantly and by `percent` a window."""
    first, last = windows[0], windows[-1]
    fallen = -_percent(_mean(first), _mean(last))
    needed = percent * (len(windows) - 1)
    third = len(losses) // 3
    # Many records reveal a slow fall; the first records alone reveal a fall right at the start.
    deviations = max(
        _rank_deviations(first, last), _rank_deviations(losses[:third], losses[-third:])
    )
    if deviations > SIGNIFICANT_FALL and fallen > needed:
        return None
    why = "within the noise of batches" if fallen > needed else f"at least {needed:.3g} % expected"
    return _violation(
        last[-1],
        f"the loss was {_mean(first):.4g} at first and is {_mean(last):.4g}: it fell by "
        f"{fallen:.3g} %, {why}",
        "the learning rate is far too low or far too high, the labels don't fit the images, or "
        "no gradient reaches the weights",
        "try a tenth and ten times the learning_rate; if that changes nothing, check the labels "
        "and the results of VanishingGradient, DeadRelu and UnchangedTensor",
    )


def _with_training_means(training: Window, validation: Window) -> list[tuple[float, Point]]:
    """Return every evaluation with the mean training loss since the previous one."""
    pairs, start = [], -1
    for point in validation:
        values = [p.value for p in training if start <= p.order < point.order]
        start = point.order
        if values:
            pairs.append((sum(values) / len(values), point))
    return pairs


def _since_improvement(points: Window, delta: float) -> tuple[int, Point]:
    """Return the number of points since the last improvement by `delta`, and that point."""
    best, count = Point(0, 0, math.inf), 0
    for point in points:
        if point.value < best.value - delta:
            best, count = point, 0
        else:
            count += 1
    return count, best


def _mean(window: Window) -> float:
    return sum(point.value for point in window) / len(window)


def _percent(before: float, after: float) -> float:
    return 100 * (after - before) / max(abs(before), _TINY)


def _standard_errors(before: Window, after: Window) -> float:
    """Return by how many standard errors the mean has risen (Welch 1947)."""
    squared_error = 0.0
    for window in (before, after):
        mean = _mean(window)
        variance = sum((point.value - mean) ** 2 for point in window) / max(len(window) - 1, 1)
        squared_error += variance / len(window)
    return (_mean(after) - _mean(before)) / math.sqrt(max(squared_error, _TINY**2))


def _rank_deviations(before: Window, after: Window) -> float:
    """Return by how many deviations of U the first values are larger (Mann and Whitney 1947).

    Ranks, because the fall itself spreads the first values and single batches are outliers.
    """
    pairs = [(a.value > b.value) + (a.value == b.value) / 2 for a in before for b in after]
    deviation = math.sqrt(len(pairs) * (len(before) + len(after) + 1) / 12)
    return (sum(pairs) - len(pairs) / 2) / deviation


def _violation(
    point: Point, sentence: str, cause: str = "", remedy: str = "", unit: str = "step"
) -> Violation:
    return Violation(point.step, "loss", point.value, sentence, cause, remedy, unit)
