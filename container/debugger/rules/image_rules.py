"""AWS's rules on images and their classes, with their parameters and defaults."""

import numpy as np

from container.debugger.reading.records import Records
from container.debugger.rules import images, inputs
from container.debugger.rules.finding import Finding

# At first every network names most images after one class.
EVALUATIONS = 3


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
    """Find classes that come far too seldom, or are hardly ever recognized."""
    batches = inputs.arrays(records, [labels_regex])
    labels = [values.ravel() for arrays in batches.values() for _, values in arrays]
    judged = inputs.last_evaluation(records, labels_regex, predictions_regex, argmax=argmax)
    evaluations = inputs.arrays(records, [predictions_regex], "EVAL").values()
    if max(map(len, evaluations), default=0) < EVALUATIONS:
        judged = None
    if not labels and judged is None:
        return Finding(0, lacks="labels")
    last = max((step for arrays in batches.values() for step, _ in arrays), default=0)
    return images.class_imbalance(
        np.concatenate(labels).astype(np.int64) if labels else judged[0],  # type: ignore[index]
        judged,
        step=last,
        threshold_imbalance=threshold_imbalance,
        threshold_misprediction=threshold_misprediction,
        samples=samples,
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
    """Find classes that are taken for each other."""
    wanted = [f"{labels}|{labels_collection}", f"{predictions}|{predictions_collection}"]
    judged = inputs.last_evaluation(records, *wanted, argmax=False)
    if judged is None:
        return Finding(0, lacks="labels and predictions of an evaluation")
    steps = [record.step for record in records.of(labels, "EVAL")]
    return images.confusion(
        *judged,
        step=steps[-1] if steps else 0,
        category_no=category_no,
        min_diag=min_diag,
        max_off_diag=max_off_diag,
    )


def check_input_images(
    records: Records,
    *,
    threshold_mean: float = 0.2,
    threshold_samples: int = 500,
    regex: str = "input_image|.*hybridsequential0_input_0",
    channel: int = 1,
) -> Finding:
    """Find input images that were not standardized."""
    samples = [pair for arrays in inputs.arrays(records, [regex]).values() for pair in arrays]
    return images.check_input_images(
        [(step, values) for step, values in samples if values.ndim > channel + 1],
        threshold_mean=threshold_mean,
        threshold_samples=threshold_samples,
        channel=channel,
    )
