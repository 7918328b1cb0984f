"""AWS's rules on losses, with their parameters and defaults, on the records of a training."""

from container.debugger.reading.records import LOSSES, Records
from container.debugger.rules import inputs, losses
from container.debugger.rules.finding import Finding


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
    """Find a loss that does not fall, or rises."""
    if not use_losses_collection and not tensor_regex and not collection_names:
        return Finding(0, lacks="tensor_regex, as use_losses_collection is false")
    pattern = inputs.patterns(collection_names, tensor_regex) or [LOSSES]
    chosen = records.training if mode.upper() in {"TRAIN", "GLOBAL"} else "EVAL"
    return losses.loss_not_decreasing(
        records.losses(chosen, pattern),
        num_steps=num_steps,
        diff_percent=diff_percent,
        increase_threshold_percent=increase_threshold_percent,
        is_trained=inputs.is_trained(records),
    )


def overfit(
    records: Records,
    *,
    tensor_regex: str | None = None,
    start_step: int = 0,
    patience: int = 1,
    ratio_threshold: float = 0.1,
) -> Finding:
    """Find a validation loss that parts from the training loss and rises."""
    pattern = inputs.patterns(None, tensor_regex) or [LOSSES]
    return losses.overfit(
        records.losses(records.training, pattern),
        records.losses("EVAL", pattern),
        start_step=start_step,
        patience=patience,
        ratio_threshold=ratio_threshold,
    )


def overtraining(
    records: Records,
    *,
    patience_train: int = 5,
    patience_validation: int = 10,
    delta: float = 0.01,
) -> Finding:
    """Find a training that continues long after its best."""
    return losses.overtraining(
        records.losses(records.training),
        records.losses("EVAL"),
        patience_train=patience_train,
        patience_validation=patience_validation,
        delta=delta,
    )
