"""[debugger] and [profiler]: what a training job records, and the rules that judge it.

Names and parameters are SageMaker Debugger's. The training container image checks its records
with them in every job; AWS's own service, closed to new accounts, is used with `service = true`.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

# The rule's name to the service, and what it needs recorded.
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

# Collections that are none of the recorder's own.
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
INTERVALS_MS = (100, 200, 500, 1000, 5000, 60_000)


@dataclass(frozen=True, kw_only=True, slots=True)
class Debugger:
    """[debugger]."""

    rules: tuple[str, ...] = ()
    train_save_interval: int | None = None
    """Steps between two records. Unset: as the training program chooses."""
    eval_save_interval: int | None = None
    parameters: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """[debugger.parameters.RULE]: of a rule."""
    service: bool = False
    """Ask SageMaker Debugger as well, where the account has it."""

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong here."""
        for rule in self.rules:
            if rule not in RULES:
                yield "rules", f"{rule!r} is no rule{_meant(rule, tuple(RULES))}"
        for rule in self.parameters:
            if rule not in self.rules:
                yield f"parameters.{rule}", "is of a rule that rules does not name"
        for name in ("train_save_interval", "eval_save_interval"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield name, f"must be 1 or more, got {value}"

    def collections(self) -> list[str]:
        """Return what the rules need recorded, in a fixed order."""
        return sorted({each for rule in self.rules for each in RULES[rule][1]})


@dataclass(frozen=True, kw_only=True, slots=True)
class Profiler:
    """[profiler]."""

    interval_ms: int = 500
    """Between two readings of processors, memory, disk and network."""
    rules: tuple[str, ...] = ()

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong here."""
        if self.interval_ms not in INTERVALS_MS:
            known = ", ".join(map(str, INTERVALS_MS))
            yield "interval_ms", f"must be one of {known}; got {self.interval_ms}"
        for rule in self.rules:
            if rule not in PROFILER_RULES:
                yield "rules", f"{rule!r} is no rule{_meant(rule, PROFILER_RULES)}"


def _meant(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(names)}"
