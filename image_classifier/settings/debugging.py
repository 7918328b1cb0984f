"""[debugger] and [profiler]: what a training job records, and the rules that check the records.

Names and parameters are SageMaker Debugger's. The training container image evaluates the rules in
every job; AWS's service, which is closed to new accounts, evaluates them too if `service = true`.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from image_classifier.settings import known_names
from image_classifier.settings.fields import Scalar, one_of
from image_classifier.settings.section import Conflict, Section, to_strings
from image_classifier.settings.suggestion import suggestion

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
    """[debugger]: rules that check the tensors of a training job."""

    rules: Annotated[tuple[Annotated[str, one_of(RULES)], ...], Field(strict=False)] = ()
    """Rules that check every training job. Unset: all rules that need no parameters."""
    train_save_interval: int | None = Field(default=None, ge=1)
    """Steps between two records in training, used if `service` is true. Unset: the training program
    chooses."""
    eval_save_interval: int | None = Field(default=None, ge=1)
    """Steps between two records in evaluation, used if `service` is true. Unset: the training
    program chooses."""
    parameters: dict[str, dict[str, Scalar]] = Field(default_factory=dict)
    """[debugger.parameters.RULE]: parameters of one of the `rules`, by their names in SageMaker."""
    service: bool = False
    """Evaluate the rules with SageMaker Debugger too, which new accounts do not have."""

    def _conflicts(self) -> Iterator[Conflict]:
        for rule, parameters in self.parameters.items():
            if rule not in self.rules:
                hint = "" if rule in RULES else suggestion(rule, RULES)
                yield Conflict(
                    f"parameters.{rule}",
                    f"belongs to a rule that rules does not name{hint}",
                    needs="rules",
                )
            if rule not in RULES:
                continue
            known = known_names.RULES[RULES[rule][0]]
            for name, value in parameters.items():
                if name not in known:
                    yield Conflict(
                        f"parameters.{rule}.{name}", f"is unknown{suggestion(name, known)}"
                    )
                elif not _is_of_type(known[name], value):
                    yield Conflict(
                        f"parameters.{rule}.{name}", f"must be {known[name]}, got {value!r}"
                    )

    def configurations(self) -> list[dict[str, Any]]:
        """Return name and parameters of every rule, in the format of the API."""
        return [
            {
                "RuleConfigurationName": RULES[rule][0],
                "RuleParameters": to_strings(self.parameters.get(rule, {})),
            }
            for rule in self.rules
        ]

    def selection(self) -> str | list[dict[str, Any]]:
        """Return the rules for the training program: names, or the configurations if they differ.

        The log of the training has this text.
        """
        has_parameters = any(self.parameters.values())
        names = ",".join(RULES[rule][0] for rule in self.rules)
        return self.configurations() if has_parameters else names

    def collections(self) -> list[str]:
        """Return the tensor collections that the rules need, in a fixed order."""
        return sorted({name for rule in self.rules for name in RULES[rule][1]})


class Profiler(Section):
    """[profiler]: what is measured on the machines of a training job."""

    interval_ms: Literal[100, 200, 500, 1000, 5000, 60_000] = 500
    """Milliseconds between two samples of CPU, memory, disk and network use, used if
    `debugger.service` is true. Else 500."""
    rules: Annotated[tuple[Annotated[str, one_of(PROFILER_RULES)], ...], Field(strict=False)] = ()
    """Profiler rules of SageMaker Debugger, used if `debugger.service` is true."""


def _is_of_type(words: str, value: object) -> bool:
    """Return whether a parameter's value can be converted to a type, given in words."""
    text = str(value).strip()
    try:
        if words == "a whole number":
            int(text)
        elif words == "a number":
            float(text)
    except ValueError:
        return False
    return words != "true or false" or text.lower() in {"true", "false", "1", "0"}


def unknown_rule(text: str) -> str | None:
    """Return a name in the hyperparameter `debug_rules` that is no rule's, or None."""
    text = text.strip()
    if text.startswith(("[", "{")) or text.lower() == "none":
        # SageMaker's JSON: the training program reads it.
        return None
    names = (part.strip().rstrip("!") for part in text.split(","))
    known = {name.lower() for name in known_names.RULES}
    # The training program accepts the names of `rules` too, such as all_zero.
    return next(
        (name for name in names if name and name.replace("_", "").lower() not in known), None
    )
