"""[debugger] and [profiler]: what a training job records, and the rules that check the records.

Names and parameters are SageMaker Debugger's. The training container image evaluates the rules in
every job; AWS's service, which is closed to new accounts, evaluates them too if `service = true`.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from image_classifier.settings.section import Scalar, Section, one_of, to_strings

# The service's name of each rule, and the tensor collections that it reads.
RULES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "loss_not_decreasing": ("LossNotDecreasing", ("losses",)),
    "vanishing_gradient": ("VanishingGradient", ("gradients",)),
    "exploding_tensor": ("ExplodingTensor", ("losses", "gradients")),
    "poor_weight_initialization": (
        "PoorWeightInitialization",
        ("weights", "gradients", "losses", "relu_input"),
    ),
    "dead_relu": ("DeadRelu", ("relu_output",)),
    "weight_update_ratio": ("WeightUpdateRatio", ("weights",)),
    "all_zero": ("AllZero", ("weights",)),
    "unchanged_tensor": ("UnchangedTensor", ("losses",)),
    "overfit": ("Overfit", ("losses",)),
    "overtraining": ("Overtraining", ("losses",)),
    "class_imbalance": ("ClassImbalance", ("labels", "predictions")),
    "confusion": ("Confusion", ("labels", "predictions")),
    "stalled_training_rule": ("StalledTrainingRule", ()),
}

# Collections that smdebug does not define.
EXPRESSIONS = {"relu_input": ".*relu_input", "relu_output": ".*relu_output"}

PROFILER_RULES = (
    "BatchSize",
    "CPUBottleneck",
    "Dataloader",
    "GPUMemoryIncrease",
    "IOBottleneck",
    "LoadBalancing",
    "LowGPUUtilization",
    "OverallSystemUsage",
    "ProfilerReport",
)


class Debugger(Section):
    """[debugger]."""

    rules: Annotated[tuple[Annotated[str, one_of(RULES)], ...], Field(strict=False)] = ()
    """Rules that check every training job."""
    train_save_interval: int | None = Field(default=None, ge=1)
    """Steps between two records in training. Unset: the training program chooses."""
    eval_save_interval: int | None = Field(default=None, ge=1)
    """Steps between two records in evaluation. Unset: the training program chooses."""
    parameters: dict[str, dict[str, Scalar]] = Field(default_factory=dict)
    """[debugger.parameters.RULE]: parameters of a rule."""
    service: bool = False
    """Also use SageMaker Debugger, if the account has it."""

    def _contradictions(self) -> Iterator[tuple[str, str]]:
        for rule in self.parameters:
            if rule not in self.rules:
                yield f"parameters.{rule}", "belongs to a rule that rules does not name"

    def configurations(self) -> list[dict[str, Any]]:
        """Return name and parameters of every rule, in the format of the API."""
        return [
            {
                "RuleConfigurationName": RULES[rule][0],
                "RuleParameters": to_strings(self.parameters.get(rule, {})),
            }
            for rule in self.rules
        ]

    def collections(self) -> list[str]:
        """Return the tensor collections that the rules need, in a fixed order."""
        return sorted({name for rule in self.rules for name in RULES[rule][1]})


class Profiler(Section):
    """[profiler]."""

    interval_ms: Literal[100, 200, 500, 1000, 5000, 60_000] = 500
    """Milliseconds between two samples of CPU, memory, disk and network use."""
    rules: Annotated[tuple[Annotated[str, one_of(PROFILER_RULES)], ...], Field(strict=False)] = ()
    """Profiler rules of SageMaker Debugger, used if `debugger.service` is true."""
