"""The log lines of a training job from which SageMaker reads metrics."""

from collections.abc import Mapping

# One line per epoch, and one for the `test` channel at the end. Each regular expression matches one
# value of a line and nothing else; an Estimator or a HyperparameterTuner takes them unchanged.
METRIC_NAMES = (
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "val_balanced_accuracy",
    "val_precision",
    "val_recall",
    "val_f1",
    "images_per_second",
    "test_loss",
    "test_accuracy",
    "test_balanced_accuracy",
    "test_precision",
    "test_recall",
    "test_f1",
)
METRIC_DEFINITIONS = [{"Name": name, "Regex": rf"\b{name}=([-+0-9.eE]+)"} for name in METRIC_NAMES]


def log_line(values: Mapping[str, float | int | str]) -> str:
    """Return `key=value` pairs in one line."""
    return " ".join(
        f"{key}={value:.5g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in values.items()
    )
