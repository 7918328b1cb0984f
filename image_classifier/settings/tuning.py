"""[tuning]: which hyperparameters are searched, how, and for what."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from container.classifier.errors import UserError
from container.training.hyperparameters import Hyperparameters

Found = Iterator[tuple[str, str]]

# What the service allows, unless an account's quotas were raised.
MAX_JOBS, MAX_PARALLEL, MAX_RANGES, MAX_VALUES = 750, 10, 30, 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """[tuning.ranges.NAME]: `min` and `max`, or `values`."""

    min: float | None = None
    max: float | None = None
    values: tuple[object, ...] = ()
    scaling: Literal["Auto", "Linear", "Logarithmic", "ReverseLogarithmic"] = "Auto"

    @property
    def low(self) -> float:
        """Return `min` of a range that has been checked."""
        return 0.0 if self.min is None else self.min

    @property
    def high(self) -> float:
        """Return `max` of a range that has been checked."""
        return 0.0 if self.max is None else self.max

    def mistakes(self) -> Found:
        """Yield what is wrong here."""
        if self.values:
            if self.min is not None or self.max is not None:
                yield "values", "are given together with min or max: drop one of them"
            if len(self.values) > MAX_VALUES:
                yield "values", f"are {len(self.values)}: SageMaker takes {MAX_VALUES}"
            if len({str(value) for value in self.values}) < len(self.values):
                yield "values", "has one of them twice"
            return
        if self.min is None or self.max is None:
            yield "", "needs min and max, or values"
            return
        if not (math.isfinite(self.min) and math.isfinite(self.max) and self.min < self.max):
            yield "", f"must have min below max, got {self.min:g} and {self.max:g}"
        elif self.scaling == "Logarithmic" and self.min <= 0:
            yield "scaling", f"Logarithmic needs min above 0, got {self.min:g}"
        elif self.scaling == "ReverseLogarithmic" and not 0 <= self.min < self.max < 1:
            yield "scaling", "ReverseLogarithmic needs 0 <= min < max < 1"


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmStart:
    """[tuning.warm_start]: continues from what earlier tuning jobs found."""

    parents: tuple[str, ...] = ()
    type: Literal["IdenticalDataAndAlgorithm", "TransferLearning"] = "TransferLearning"

    def mistakes(self) -> Found:
        """Yield what is wrong here."""
        if not 1 <= len(self.parents) <= 5:  # noqa: PLR2004 - the API's limit
            yield "parents", f"must name one to five tuning jobs, got {len(self.parents)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """[tuning]."""

    objective: str = "val_accuracy"
    """One of the metrics; the last value that a job prints counts."""
    goal: Literal["Maximize", "Minimize"] | None = None
    """Unset: Minimize for a loss, else Maximize."""
    strategy: Literal["Bayesian", "Random", "Grid", "Hyperband"] = "Bayesian"
    jobs: int = 20
    parallel: int = 2
    early_stopping: bool = False
    """End jobs that are no good."""
    seed: int = 0
    ranges: Mapping[str, Range] = field(default_factory=dict)
    warm_start: WarmStart | None = None

    @property
    def is_minimized(self) -> bool:
        """Tell whether less is better."""
        if self.goal is None:
            return self.objective.endswith("loss")
        return self.goal == "Minimize"

    def max_epochs(self, hyperparameters: Mapping[str, object]) -> int:
        """Return the number of epochs of the longest trial."""
        epochs = self.ranges.get("epochs")
        if epochs is None:
            return int(str(hyperparameters.get("epochs", 5)))
        return max(int(float(str(value))) for value in epochs.values or (epochs.high,))

    def mistakes(self) -> Found:
        """Yield what is wrong here."""
        if not 1 <= self.jobs <= MAX_JOBS:
            yield "jobs", f"must be 1 to {MAX_JOBS}, got {self.jobs}"
        if not 1 <= self.parallel <= MAX_PARALLEL:
            yield "parallel", f"must be 1 to {MAX_PARALLEL}, got {self.parallel}"
        elif self.parallel > self.jobs:
            yield "parallel", f"is more than jobs, {self.jobs}"
        if self.goal == "Maximize" and self.objective.endswith("loss"):
            yield "goal", f"would make {self.objective} as large as possible: Minimize it"
        if self.goal == "Minimize" and not self.objective.endswith("loss"):
            yield "goal", f"would make {self.objective} as small as possible: Maximize it"
        if self.early_stopping and self.strategy == "Hyperband":
            yield "early_stopping", "is Hyperband's own matter: leave it out"
        if not 1 <= len(self.ranges) <= MAX_RANGES:
            yield "ranges", f"must be 1 to {MAX_RANGES}, got {len(self.ranges)}"
        for name, each in self.ranges.items():
            if self.strategy == "Grid" and not each.values:
                yield f"ranges.{name}", "must be values: Grid tries nothing between"
            yield from ((f"ranges.{name}", sentence) for sentence in _judge(name, each))


def is_integer(name: str) -> bool:
    """Tell whether a hyperparameter takes whole numbers alone."""
    try:
        Hyperparameters.from_strings({name: 1.5})
    except UserError as error:
        return "whole number" in str(error)
    return False


def _judge(name: str, each: Range) -> Iterator[str]:
    """Yield what the training program would say of a range's ends and values."""
    ends = [end for end in (each.min, each.max) if end is not None]
    if is_integer(name) and each.scaling == "ReverseLogarithmic":
        yield "takes whole numbers, which ReverseLogarithmic does not give"
    for value in each.values or ends:
        try:
            Hyperparameters.from_strings({name: value})
        except UserError as error:
            # Several values fail for the same reason.
            yield str(error)
            return
