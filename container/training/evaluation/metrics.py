"""The log lines that SageMaker reads metrics from, and which of two epochs is the better one."""

from collections.abc import Mapping

# One log line an epoch, and one of the `test` channel at the end. Each expression matches one value
# of a line and nothing else; they are given to an Estimator or a HyperparameterTuner as they stand.
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


def is_better(objective: str, metrics: Mapping[str, float], best: Mapping[str, float]) -> bool:
    """Tell whether `metrics` beat `best`; of equal ones the lower validation loss wins."""
    sign = -1 if objective == "val_loss" else 1
    ours, theirs = sign * metrics[objective], sign * best[objective]
    return (ours, -metrics["val_loss"]) > (theirs, -best["val_loss"])


def log_line(values: Mapping[str, float | int | str]) -> str:
    """Return `key=value` pairs in one line."""
    return " ".join(f"{key}={_format(value)}" for key, value in values.items())


def _format(value: float | str) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
