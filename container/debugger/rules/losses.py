"""Rules on losses: whether they fall, part, or have stopped falling.

A batch's loss is a noisy thing. Where AWS compares one loss with another, these compare means of
`num_steps` records, and believe a rise from `CERTAIN` standard errors on.
"""

import math
from collections.abc import Sequence

from container.debugger.reading.records import Point
from container.debugger.rules.finding import Finding, Violation

CERTAIN = 3.0

# Windows that there must be before a loss is blamed: at first the learning rate only warms up.
WINDOWS = 3

# Of the deviations of Mann and Whitney's U; two windows of five that don't overlap have 2.6.
CERTAIN_RANKS = 2.5


def loss_not_decreasing(
    losses: Sequence[Point],
    *,
    num_steps: int = 10,
    diff_percent: float = 0.1,
    increase_threshold_percent: float = 5.0,
    is_trained: bool = False,
) -> Finding:
    """Judge whether the loss falls from the first records to the last ones, and stays down.

    It must fall by `diff_percent` in every `num_steps` records until it has fallen for certain.
    `is_trained` says that the network could do its task from the first step on, as one whose head
    was trained before: its loss need not fall, and must not rise.
    """
    windows = [losses[i : i + num_steps] for i in range(0, len(losses), num_steps)]
    if windows and len(windows[-1]) < num_steps:
        # The last records count most.
        windows[-1] = losses[-num_steps:]
    if len(windows) < WINDOWS or len(losses) < WINDOWS * num_steps:
        return Finding(len(losses), lacks=f"{WINDOWS * num_steps} training losses")
    first, last = windows[0], windows[-1]
    # Losses that are no numbers any more are never the best.
    best = min(windows, key=lambda window: _or_inf(_mean(window)))
    violations = []
    risen = _percent(_mean(best), _mean(last))
    if not math.isfinite(_mean(last)) or (
        risen > increase_threshold_percent and _difference(best, last) > CERTAIN
    ):
        violations.append(
            _of_loss(
                last[-1],
                f"the loss has risen by {risen:.3g} % from {_mean(best):.4g} at step "
                f"{best[-1].step} to {_mean(last):.4g}; {increase_threshold_percent:g} % may be",
                "the learning rate is too high: the steps jump over the minimum",
                "divide learning_rate by 10, or set gradient_clip_norm=1",
            )
        )
    fallen = -_percent(_mean(first), _mean(last))
    needed = diff_percent * (len(windows) - 1)
    third = len(losses) // 3
    # A slow fall shows in many records, one of the first records in these alone.
    is_certain = (
        max(_rank_difference(first, last), _rank_difference(losses[:third], losses[-third:]))
        > CERTAIN_RANKS
    )
    if not violations and not is_trained and not (is_certain and fallen > needed):
        violations.append(
            _of_loss(
                last[-1],
                f"the loss was {_mean(first):.4g} at first and is {_mean(last):.4g}: it fell by "
                f"{fallen:.3g} %"
                + (
                    ", no more than batches differ"
                    if fallen > needed
                    else f", and {needed:.3g} % was the least"
                ),
                "the learning rate is far too low or far too high, the labels don't fit the "
                "images, or no gradient reaches the weights",
                "set find_learning_rate=true; if that changes nothing, look at the labels and at "
                "what VanishingGradient, DeadRelu and UnchangedTensor say",
            )
        )
    return Finding(len(losses), violations)


def overfit(
    training: Sequence[Point],
    validation: Sequence[Point],
    *,
    start_step: int = 0,
    patience: int = 1,
    ratio_threshold: float = 0.1,
) -> Finding:
    """Judge whether the validation loss parts from the training loss, and rises.

    A distance alone is what every network that learns its images has, and so this wants more
    than AWS's. The validation loss must be `ratio_threshold` above its best, and the training loss
    below what it was then: where both rise, nothing is learned by heart. From one evaluation to
    the next it must not fall, nor ever below that best again: at the peak of a learning rate's
    cycle it may rise for a while, and a training that recovers was none that overfits.
    """
    pairs = [pair for pair in _between(training, validation) if pair[1].step >= start_step]
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
        has_parted = point.value > best * (1 + ratio_threshold) and mean < best_mean
        if not (has_parted and ratio > ratio_threshold):
            in_a_row = 0
        elif point.value >= before:
            in_a_row += 1
        else:
            in_a_row = 1
        before = point.value
        if in_a_row > patience:
            violations.append(
                _of_loss(
                    point,
                    f"the validation loss {point.value:.4g} is {ratio:.3g} times the training loss "
                    f"{mean:.4g} above it, where {ratio_threshold:g} may be, and "
                    f"{_percent(best, point.value):.3g} % above its best, {best:.4g}",
                    "the network learns the training images by heart",
                    "set early_stopping_patience=3; more images, augmentation, weight_decay or "
                    "mixup=0.2 help further; many wrong labels look the same",
                )
            )
    return Finding(len(pairs), violations)


def overtraining(
    training: Sequence[Point],
    validation: Sequence[Point],
    *,
    patience_train: int = 5,
    patience_validation: int = 10,
    delta: float = 0.01,
) -> Finding:
    """Judge whether evaluations continue long after the loss has stopped falling by `delta`.

    The training loss is the mean between two evaluations; without evaluations nothing is known of
    how long is too long, and the training loss alone would blame noise. A network that has not
    learned at all, unless its head was trained before the first step, is not at its end.
    """
    if len(validation) <= patience_validation:
        return Finding(len(validation), lacks=f"{patience_validation + 1} evaluations")
    means = [Point(point.order, point.step, mean) for mean, point in _between(training, validation)]
    idle_validation, best = _idle(validation, delta)
    idle_train, _ = _idle(means, delta)
    was_trained = bool(training) and validation[0].order < training[0].order
    has_learned = not loss_not_decreasing(training, is_trained=was_trained).violations
    violations = []
    if idle_validation >= patience_validation and has_learned:
        also = ""
        if idle_train >= patience_train:
            also = f", the training loss for {idle_train}"
        violations.append(
            _of_loss(
                validation[-1],
                f"the validation loss has not fallen by {delta:g} below {best.value:.4g} of "
                f"evaluation {best.step} for {idle_validation} evaluations{also}; "
                f"{patience_validation} are the most",
                "the training continues after there is nothing more to learn",
                f"set epochs={max(best.step, 1)}, or early_stopping_patience=3",
            )
        )
    return Finding(len(validation), violations)


_TINY = 1e-12


def _between(training: Sequence[Point], validation: Sequence[Point]) -> list[tuple[float, Point]]:
    """Return every evaluation with the mean training loss since the one before it."""
    pairs, start = [], -1
    for point in validation:
        values = [p.value for p in training if start <= p.order < point.order]
        start = point.order
        if values:
            pairs.append((sum(values) / len(values), point))
    return pairs


def _idle(points: Sequence[Point], delta: float) -> tuple[int, Point]:
    """Return how many points have come since the last that was `delta` better, and that one."""
    best, idle = Point(0, 0, math.inf), 0
    for point in points:
        if point.value < best.value - delta:
            best, idle = point, 0
        else:
            idle += 1
    return idle, best


def _mean(window: Sequence[Point]) -> float:
    return sum(point.value for point in window) / len(window)


def _or_inf(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def _percent(before: float, after: float) -> float:
    return 100 * (after - before) / max(abs(before), _TINY)


def _difference(before: Sequence[Point], after: Sequence[Point]) -> float:
    """Return by how many standard errors the mean has risen (Welch 1947)."""
    errors = [_squared_error(window) for window in (before, after)]
    return (_mean(after) - _mean(before)) / math.sqrt(max(sum(errors), _TINY**2))


def _rank_difference(before: Sequence[Point], after: Sequence[Point]) -> float:
    """Return how surely the first are larger (Mann and Whitney 1947).

    By ranks: the first records' spread is of the fall itself, and single batches stick out.
    """
    pairs = [(a.value > b.value) + (a.value == b.value) / 2 for a in before for b in after]
    deviation = math.sqrt(len(pairs) * (len(before) + len(after) + 1) / 12)
    return (sum(pairs) - len(pairs) / 2) / deviation


def _squared_error(window: Sequence[Point]) -> float:
    mean = _mean(window)
    variance = sum((point.value - mean) ** 2 for point in window) / max(len(window) - 1, 1)
    return variance / len(window)


def _of_loss(point: Point, sentence: str, cause: str, remedy: str) -> Violation:
    return Violation(
        step=point.step,
        tensor="loss",
        value=point.value,
        sentence=sentence,
        cause=cause,
        remedy=remedy,
    )
