"""Rules on images and their classes: even ones, told apart, normalized."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from container.debugger.rules.finding import Finding, Violation

# Images of a class without which nothing is said of how often it is mistaken.
FEW = 10

# No pixel lies farther from ImageNet's mean, in its deviations: black and white do at 2.1 and 2.6.
FAR = 6.0

Labels = npt.NDArray[np.int64]


def class_imbalance(
    labels: Labels,
    judged: tuple[Labels, Labels] | None,
    *,
    step: int,
    threshold_imbalance: float = 10.0,
    threshold_misprediction: float = 0.7,
    samples: int = 500,
) -> Finding:
    """Judge how often each class comes (N,), and how often the last evaluation's is mistaken.

    `judged` are the evaluation's labels and predictions.
    """
    violations = []
    if len(labels) >= samples:
        classes, counts = np.unique(labels, return_counts=True)
        ratio = counts.max() / counts.min()
        if ratio > threshold_imbalance:
            rare, common = classes[counts.argmin()], classes[counts.argmax()]
            violations.append(
                Violation(
                    step=step,
                    tensor="labels",
                    value=float(ratio),
                    sentence=f"class {common} comes {ratio:.3g} times as often as class {rare} "
                    f"({counts.max()} and {counts.min()} of {len(labels)} images); "
                    f"{threshold_imbalance:g} times may be",
                    cause="the channel has far more images of some classes, and the network "
                    "hardly sees the others",
                    remedy="leave class_balance=auto, or set class_balance=sampling; add images "
                    "of the rare classes",
                )
            )
    if judged is not None:
        violations += _mistaken(*judged, step=step, threshold=threshold_misprediction)
    is_enough = len(labels) >= samples or judged is not None
    return Finding(len(labels), violations, lacks="" if is_enough else f"{samples} labels")


def confusion(
    labels: Labels,
    predictions: Labels,
    *,
    step: int,
    category_no: int | None = None,
    min_diag: float = 0.9,
    max_off_diag: float = 0.1,
) -> Finding:
    """Judge the shares of each class's images (N,) that are named correctly, and as another one."""
    count = int(max(labels.max(initial=-1), predictions.max(initial=-1))) + 1
    count = max(count, category_no or 0)
    if len(labels) == 0:
        return Finding(0, lacks="labels and predictions of an evaluation")
    matrix = np.zeros((count, count))
    np.add.at(matrix, (labels, predictions), 1)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    violations = []
    for true in np.flatnonzero(matrix.sum(axis=1)).tolist():
        for predicted in range(count):
            share = float(shares[true, predicted])
            is_right = true == predicted
            if (is_right and share < min_diag) or (not is_right and share > max_off_diag):
                limit = f"{min_diag:.0%} is the least" if is_right else f"{max_off_diag:.0%} may be"
                violations.append(
                    Violation(
                        step=step,
                        tensor="predictions",
                        value=share,
                        sentence=f"{100 * share:.3g} % of class {true} are named {predicted}; "
                        f"{limit}",
                        cause="the two classes look alike, or labels are wrong",
                        remedy="look at the worst mistakes in report.html; add images of the two",
                    )
                )
    return Finding(len(labels), violations)


def check_input_images(
    samples: Sequence[tuple[int, npt.NDArray[np.float64]]],
    *,
    threshold_mean: float = 0.2,
    threshold_samples: int = 500,
    channel: int = 1,
) -> Finding:
    """Judge whether the network's inputs (N, C, H, W) were standardized.

    Images darker or brighter than ImageNet's have another mean than zero, and are right; a mean
    beyond the threshold is believed where values lie on one side of zero, or farther from it than
    black and white do.
    """
    count = sum(len(values) for _, values in samples)
    if count < threshold_samples:
        return Finding(count, lacks=f"{threshold_samples} input images")
    values = np.concatenate(
        [np.moveaxis(v, channel, 1).reshape(len(v), v.shape[channel], -1) for _, v in samples]
    )
    mean = float(np.abs(values.mean(axis=(0, 2))).max())
    low, high = float(values.min()), float(values.max())
    if mean <= threshold_mean or (low < 0 < high and max(-low, high) < FAR):
        return Finding(count)
    what = "none is below zero" if low >= 0 else f"they reach from {low:.3g} to {high:.3g}"
    violation = Violation(
        step=samples[-1][0],
        tensor="input_image",
        value=mean,
        sentence=f"a channel's mean is {mean:.3g} from zero, where {threshold_mean:g} may be, and "
        f"{what}",
        cause="the images are not scaled to deviations from ImageNet's mean, or twice",
        remedy="subtract mean and divide by std once, in units of the pixels' range",
    )
    return Finding(count, [violation])


def _mistaken(
    labels: Labels, predictions: Labels, *, step: int, threshold: float
) -> list[Violation]:
    found = []
    for label in np.unique(labels).tolist():
        own = predictions[labels == label]
        share = float((own != label).mean())
        if len(own) >= FEW and share > threshold:
            found.append(
                Violation(
                    step=step,
                    tensor="predictions",
                    value=share,
                    sentence=f"{share:.0%} of class {label} are taken for others; "
                    f"{threshold:.0%} may be",
                    cause="the class is rare, looks like another, or is labeled incorrectly",
                    remedy="set class_balance=sampling, and look at the class in report.html",
                )
            )
    return found
