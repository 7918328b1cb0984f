"""[tuning]: which hyperparameters are searched, how, and for which objective."""

import math
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import Field

from container.classifier.errors import UserError
from container.training.hyperparameters import (
    FOREIGN_NAMES,
    FOREIGN_PREFIXES,
    Hyperparameters,
)
from image_classifier.settings.debugging import unknown_rule
from image_classifier.settings.fields import Scalar, Strings
from image_classifier.settings.known_names import NETWORKS, RULES
from image_classifier.settings.section import Conflict, Section
from image_classifier.settings.suggestion import suggestion

# The default quotas of the service.
MAX_JOBS, MAX_PARALLEL, MAX_RANGES, MAX_VALUES, MAX_PARENTS = 750, 10, 30, 30, 5


class Range(Section):
    """[tuning.ranges.NAME]: `min` and `max`, or `values`."""

    min: float | None = None
    """Least value. Needs `max`."""
    max: float | None = None
    """Greatest value. Needs `min`."""
    values: Annotated[tuple[Scalar, ...], Field(strict=False, max_length=MAX_VALUES)] = ()
    """Values to choose from, instead of `min` and `max`."""
    scaling: Literal["Auto", "Linear", "Logarithmic", "ReverseLogarithmic"] = "Auto"
    """Scale on which the range is searched."""

    @property
    def bounds(self) -> tuple[float, float]:
        """Return `min` and `max` of a range that has been checked."""
        return self.min or 0.0, self.max or 0.0

    def _conflicts(self) -> Iterator[Conflict]:
        if self.values:
            if self.min is not None or self.max is not None:
                yield Conflict("values", "cannot be combined with min or max: drop one of them")
            if len({str(value) for value in self.values}) < len(self.values):
                yield Conflict("values", "contains a value twice")
            return
        if self.min is None or self.max is None:
            yield Conflict("", "needs min and max, or values", needs="")
            return
        if not (math.isfinite(self.min) and math.isfinite(self.max) and self.min < self.max):
            message = f"must have min below max, got {self.min:g} and {self.max:g}"
            yield Conflict("", message, needs="")
        elif self.scaling == "Logarithmic" and self.min <= 0:
            yield Conflict("scaling", f"Logarithmic needs min above 0, got {self.min:g}")
        elif self.scaling == "ReverseLogarithmic" and not 0 <= self.min < self.max < 1:
            yield Conflict("scaling", "ReverseLogarithmic needs 0 <= min < max < 1")


class WarmStart(Section):
    """[tuning.warm_start]: use the results of earlier tuning jobs."""

    parents: Strings = ()
    """Names of one to five earlier tuning jobs."""
    type: Literal["IdenticalDataAndAlgorithm", "TransferLearning"] = "TransferLearning"
    """What the parents have in common with this tuning job."""

    def _conflicts(self) -> Iterator[Conflict]:
        if not 1 <= len(self.parents) <= MAX_PARENTS:
            yield Conflict("parents", f"must name one to five tuning jobs, got {len(self.parents)}")


class Tuning(Section):
    """[tuning]: the search of hyperparameters."""

    objective: str = "val_accuracy"
    """Metric to optimize, whose last value in the log counts: one of the training program's, or of
    `[metrics]`."""
    goal: Literal["Maximize", "Minimize"] | None = None
    """Whether the objective is to be small or large. Unset: `Minimize` for a loss, else
    `Maximize`."""
    strategy: Literal["Bayesian", "Random", "Grid", "Hyperband"] = "Bayesian"
    """How values are chosen. `Grid` tries all combinations of `values`; `Hyperband` stops bad jobs
    early."""
    jobs: int = Field(default=20, ge=1, le=MAX_JOBS)
    """Training jobs in total. Not used by `Grid`."""
    parallel: int = Field(default=2, ge=1, le=MAX_PARALLEL)
    """Training jobs at a time."""
    early_stopping: bool = False
    """Stop jobs that are unlikely to become the best."""
    seed: int = 0
    """Seed of the search."""
    ranges: dict[str, Range] = Field(default_factory=dict)
    """The searched hyperparameters."""
    warm_start: WarmStart | None = None
    """Use the results of earlier tuning jobs. Unset: use none."""

    @property
    def is_minimized(self) -> bool:
        """Return whether less is better."""
        if self.goal is None:
            return self.objective.endswith("loss")
        return self.goal == "Minimize"

    @property
    def trial_count(self) -> int:
        """Return the number of training jobs: of a grid, that of its points."""
        if self.strategy == "Grid":
            return math.prod(len(limits.values) for limits in self.ranges.values())
        return self.jobs

    def max_epochs(self, hyperparameters: Mapping[str, object]) -> int:
        """Return the number of epochs of the longest trial."""
        epochs = self.ranges.get("epochs")
        if epochs is None:
            return int(str(hyperparameters.get("epochs", 5)))
        return max(int(float(str(value))) for value in epochs.values or epochs.bounds)

    def _conflicts(self) -> Iterator[Conflict]:
        if self.parallel > self.jobs:
            yield Conflict("parallel", f"is more than jobs, {self.jobs}", needs="jobs")
        is_loss = self.objective.endswith("loss")
        if self.goal == ("Maximize" if is_loss else "Minimize"):
            size, remedy = ("large", "Minimize") if is_loss else ("small", "Maximize")
            message = f"would make {self.objective} as {size} as possible: {remedy} it"
            yield Conflict("goal", message, needs="objective")
        if self.early_stopping and self.strategy == "Hyperband":
            yield Conflict("early_stopping", "is part of Hyperband: leave it out", needs="strategy")
        if not 1 <= len(self.ranges) <= MAX_RANGES:
            message = f"must be 1 to {MAX_RANGES}, got {len(self.ranges)}"
            yield Conflict("ranges", message, needs="ranges")
        for name, limits in self.ranges.items():
            key = f"ranges.{name}"
            if self.strategy == "Grid" and not limits.values:
                message = "must be values: Grid does not sample between min and max"
                yield Conflict(key, message, needs=f"{key}.values")
            if is_integer(name) and limits.scaling == "ReverseLogarithmic":
                yield Conflict(key, "takes integers, which ReverseLogarithmic does not support")
            ends = [end for end in (limits.min, limits.max) if end is not None]
            rejections = (rejection({name: value}) for value in limits.values or ends)
            # Several values are rejected for the same reason.
            if rejected := next(filter(None, rejections), None):
                yield Conflict(key, rejected[1])


def is_integer(name: str) -> bool:
    """Return whether a hyperparameter takes only integers."""
    hint = typing.get_type_hints(Hyperparameters).get(name)
    return int in {hint, *typing.get_args(hint)}


def rejection(hyperparameters: Mapping[str, object]) -> tuple[str, str] | None:
    """Return a hyperparameter that the training program would reject, and why; or None."""
    known = typing.get_type_hints(Hyperparameters)
    for name in hyperparameters:
        is_foreign = name.startswith(FOREIGN_PREFIXES) or name in FOREIGN_NAMES
        if name not in known and not is_foreign:
            return name, f"is unknown{suggestion(name, known)}"
    try:
        parsed = Hyperparameters.from_strings(hyperparameters)
    except UserError as error:
        # The message begins with the name.
        name, _, reason = str(error).partition(" ")
        return name, reason
    if (network := parsed.network) not in NETWORKS:
        return "network", f"names an unknown network, {network!r}{suggestion(network, NETWORKS)}"
    if parsed.debug_rules and (rule := unknown_rule(parsed.debug_rules)):
        return "debug_rules", f"names an unknown rule, {rule!r}{suggestion(rule, RULES)}"
    return None
