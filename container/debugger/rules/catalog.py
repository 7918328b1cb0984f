"""AWS's rules by name, on the records of a training."""

from collections.abc import Callable, Mapping

from container.debugger.reading.records import Records
from container.debugger.rules import image_rules, layer_rules, loss_rules, stalled
from container.debugger.rules.finding import Finding


def stalled_training(
    records: Records, *, threshold: float = 1800.0, stop_training_on_fire: bool = False
) -> Finding:
    """Find long times in which nothing was recorded."""
    # What AWS's rule does then, `stop` of the rules' configuration does here.
    del stop_training_on_fire
    return stalled.stalled_training(records.times, threshold=threshold)


RULES: Mapping[str, Callable[..., Finding]] = {
    "LossNotDecreasing": loss_rules.loss_not_decreasing,
    "Overfit": loss_rules.overfit,
    "Overtraining": loss_rules.overtraining,
    "VanishingGradient": layer_rules.vanishing_gradient,
    "ExplodingTensor": layer_rules.exploding_tensor,
    "PoorWeightInitialization": layer_rules.poor_weight_initialization,
    "DeadRelu": layer_rules.dead_relu,
    "SaturatedActivation": layer_rules.saturated_activation,
    "WeightUpdateRatio": layer_rules.weight_update_ratio,
    "UnchangedTensor": layer_rules.unchanged_tensor,
    "AllZero": layer_rules.all_zero,
    "TensorVariance": layer_rules.tensor_variance,
    "ClassImbalance": image_rules.class_imbalance,
    "Confusion": image_rules.confusion,
    "CheckInputImages": image_rules.check_input_images,
    "StalledTraining": stalled_training,
}

# Of a default AWS's rules, too: these need to be told what is good enough.
ON_REQUEST = frozenset({"TensorVariance", "Confusion"})
