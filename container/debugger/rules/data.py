"""Rules on the data: images, their classes, and the times between records."""

import itertools

import numpy as np

from container.debugger.reading.records import Records
from container.debugger.rules import inputs
from container.debugger.rules.inputs import Labels
from container.debugger.rules.rule import Finding, Violation, rule

# Evaluations before mistakes count: at first every network predicts one class for most images.
EVALUATIONS = 3

# Fewest images of a class whose mistakes count.
MIN_IMAGES = 10

# No pixel is farther from ImageNet's mean, in its standard deviations: black is at 2.1, white 2.6.
MAX_DEVIATION = 6.0


@rule(
    "ClassImbalance",
    cause="the channel has far more images of some classes, so that the network hardly learns the "
    "others",
    remedy="leave class_balance=auto, or set class_balance=sampling; add images of the rare "
    "classes",
)
def class_imbalance(
    records: Records,
    *,
    threshold_imbalance: float = 10.0,
    threshold_misprediction: float = 0.7,
    samples: int = 500,
    argmax: bool = False,
    labels_regex: str = ".*labels",
    predictions_regex: str = ".*predictions",
) -> Finding:
    """Find classes that are too rare in the batches, or mostly misclassified."""
    batches = inputs.arrays(records, [labels_regex])
    arrays = [values.ravel() for found in batches.values() for _, values in found]
    evaluated = inputs.last_evaluation(records, labels_regex, predictions_regex, argmax=argmax)
    evaluations = inputs.arrays(records, [predictions_regex], "EVAL").values()
    if max(map(len, evaluations), default=0) < EVALUATIONS:
        evaluated = None
    if arrays:
        labels = np.concatenate(arrays).astype(np.int64)
    elif evaluated is not None:
        labels = evaluated[0]
    else:
        return Finding(0, lacks="labels")
    step = max((step for found in batches.values() for step, _ in found), default=0)
    violations = []
    if len(labels) >= samples:
        classes, counts = np.unique(labels, return_counts=True)
        ratio = float(counts.max() / counts.min())
        if ratio > threshold_imbalance:
            rare, common = classes[counts.argmin()], classes[counts.argmax()]
            sentence = (
                f"class {common} is {ratio:.3g} times as frequent as class {rare} ({counts.max()} "
                f"and {counts.min()} of {len(labels)} images); the limit is "
                f"{threshold_imbalance:g}"
            )
            violations.append(Violation(step, "labels", ratio, sentence))
    if evaluated is not None:
        violations += _misclassified(*evaluated, step=step, threshold=threshold_misprediction)
    is_enough = len(labels) >= samples or evaluated is not None
    return Finding(len(labels), violations, lacks="" if is_enough else f"{samples} labels")


@rule(
    "Confusion",
    needs_limits=True,
    cause="the two classes look alike, or labels are wrong",
    remedy="check the worst mistakes in report.html; add images of both classes",
)
def confusion(
    records: Records,
    *,
    category_no: int | None = None,
    labels: str = "labels",
    predictions: str = "predictions",
    labels_collection: str = "labels",
    predictions_collection: str = "predictions",
    min_diag: float = 0.9,
    max_off_diag: float = 0.1,
) -> Finding:
    """Find classes that are confused, by the confusion matrix of the last evaluation.

    Its rows are normalized: the fractions of each class's images that are predicted as each class.
    """
    wanted = [f"{labels}|{labels_collection}", f"{predictions}|{predictions_collection}"]
    evaluated = inputs.last_evaluation(records, *wanted, argmax=False)
    if evaluated is None or len(evaluated[0]) == 0:
        return Finding(0, lacks="labels and predictions of an evaluation")
    step = max((record.step for record in records.of(labels, "EVAL")[-1:]), default=0)
    count = max(int(max(classes.max() for classes in evaluated)) + 1, category_no or 0)
    matrix = np.zeros((count, count))
    np.add.at(matrix, evaluated, 1)
    ratios = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    violations = []
    for true in np.flatnonzero(matrix.sum(axis=1)).tolist():
        for predicted, ratio in enumerate(ratios[true].tolist()):
            if true == predicted and ratio < min_diag:
                limit = f"the minimum is {min_diag:.0%}"
            elif true != predicted and ratio > max_off_diag:
                limit = f"the limit is {max_off_diag:.0%}"
            else:
                continue
            sentence = f"{100 * ratio:.3g} % of class {true} are classified as {predicted}; {limit}"
            violations.append(Violation(step, "predictions", ratio, sentence))
    return Finding(len(evaluated[0]), violations)


@rule(
    "CheckInputImages",
    cause="the images are not normalized with ImageNet's mean and deviation, or twice",
    remedy="subtract the mean and divide by std once, in units of the pixels' range",
)
def check_input_images(
    records: Records,
    *,
    threshold_mean: float = 0.2,
    threshold_samples: int = 500,
    regex: str = "input_image|.*hybridsequential0_input_0",
    channel: int = 1,
) -> Finding:
    """Find input images (N, C, H, W) that are not standardized.

    Images that are darker or brighter than ImageNet's have a mean other than zero and are valid. A
    mean beyond the threshold counts only if no value is below zero, or a value is farther from zero
    than black and white are.
    """
    found = [pair for arrays in inputs.arrays(records, [regex]).values() for pair in arrays]
    samples = [(step, values) for step, values in found if values.ndim > channel + 1]
    count = sum(len(values) for _, values in samples)
    if count < threshold_samples:
        return Finding(count, lacks=f"{threshold_samples} input images")
    pixels = np.concatenate(
        [np.moveaxis(v, channel, 1).reshape(len(v), v.shape[channel], -1) for _, v in samples]
    )
    mean = float(np.abs(pixels.mean(axis=(0, 2))).max())
    low, high = float(pixels.min()), float(pixels.max())
    if mean <= threshold_mean or (low < 0 < high and max(-low, high) < MAX_DEVIATION):
        return Finding(count)
    span = f"the values range from {low:.3g} to {high:.3g}" if low < 0 else "no value is below zero"
    sentence = (
        f"the mean of a channel is {mean:.3g} from zero (limit {threshold_mean:g}), and {span}"
    )
    return Finding(count, [Violation(samples[-1][0], "input_image", mean, sentence)])


@rule(
    "StalledTraining",
    cause="the training waited for the loader, the disk or another process of the job",
    remedy="check disk, network and CPU at that time in the system metrics",
)
def stalled_training(
    records: Records, *, threshold: float = 1800.0, stop_training_on_fire: bool = False
) -> Finding:
    """Find long intervals in which nothing was recorded.

    Args:
        records: of a training.
        threshold: seconds between two records.
        stop_training_on_fire: has no effect; the selection's `stoptraining` action stops a job.
    """
    del stop_training_on_fire
    violations = [
        Violation(
            step,
            "all",
            after - before,
            f"nothing was recorded for {after - before:.4g} seconds before step {step}; "
            f"the limit is {threshold:g}",
        )
        for (_, before), (step, after) in itertools.pairwise(records.times)
        if after - before > threshold
    ]
    count = len(records.times)
    return Finding(count, violations, lacks="" if count > 1 else "two records")


def _misclassified(
    labels: Labels, predictions: Labels, *, step: int, threshold: float
) -> list[Violation]:
    violations = []
    for label in np.unique(labels).tolist():
        predicted = predictions[labels == label]
        ratio = float((predicted != label).mean())
        if len(predicted) >= MIN_IMAGES and ratio > threshold:
            sentence = (
                f"{ratio:.0%} of class {label} are misclassified; the limit is {threshold:.0%}"
            )
            cause = "the class is rare, looks like another one, or is labeled incorrectly"
            remedy = "set class_balance=sampling, and check the class in report.html"
            violations.append(Violation(step, "predictions", ratio, sentence, cause, remedy))
    return violations
