"""Recorded tensors of a training, by name and step."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

Mode = Literal["TRAIN", "EVAL", "GLOBAL"]

LearningRate = Literal["rising", "high", "low"]
"""The phase of its schedule: before its peak, above a tenth of it, or below, as at the end."""

# Its phase at the last evaluation, beside the tensors of this training program. Without the file,
# the records are those of another program, and complete.
LEARNING_RATE_FILE = "learning_rate.txt"

LOSSES = r"[Ll]oss_(?!input).*output"
GRADIENTS = r"^gradient/"
WEIGHTS = r"^(?!gradient|update_ratio).*weight"

Array = npt.NDArray[np.generic]


class DamagedTensorError(ValueError):
    """The index refers to a tensor that does not exist or cannot be read."""


@dataclass(frozen=True, slots=True)
class Point:
    """A value at a step."""

    order: int
    """Position among all records, including evaluations."""

    step: int
    value: float


@dataclass(slots=True)
class Record:
    """A tensor at a step: the whole tensor, its reductions, or both."""

    order: int
    step: int
    loaders: dict[str, Callable[[], Array]]
    """By reduction; the empty name stands for the whole tensor."""

    _known: dict[str, float] = field(default_factory=dict)

    def reduction(self, name: str) -> float | None:
        """Return a reduction, computed from the whole tensor if it was not recorded."""
        if name not in self._known:
            if name in self.loaders:
                self._known[name] = float(np.asarray(self.loaders[name](), np.float64).mean())
            elif "" in self.loaders:
                self._reduce(np.asarray(self.loaders[""](), np.float64))
            elif name == "zeros" and (mean := self.reduction("abs_mean")) is not None:
                # Without the whole tensor only this can be derived.
                self._known[name] = float(mean == 0)
        return self._known.get(name)

    def whole(self) -> Array | None:
        """Return the whole tensor, or None if it was not recorded."""
        return self.loaders[""]() if "" in self.loaders else None

    def _reduce(self, values: npt.NDArray[np.float64]) -> None:
        if values.size == 0:
            return
        absolute = np.abs(values)
        with np.errstate(all="ignore"):
            self._known |= {
                "min": float(values.min()),
                "max": float(values.max()),
                "mean": float(values.mean()),
                # Unbiased, as in torch; 0 for a single value.
                "variance": float(values.var(ddof=1)) if values.size > 1 else 0.0,
                "std": float(values.std(ddof=1)) if values.size > 1 else 0.0,
                "abs_mean": float(absolute.mean()),
                "abs_max": float(absolute.max()),
                "l2": float(np.sqrt((values**2).sum())),
                "zeros": float((values == 0).mean()),
            }


@dataclass(frozen=True, slots=True)
class Records:
    """All records of a training by tensor and mode, each in order."""

    tensors: Mapping[tuple[str, str], list[Record]]
    times: list[tuple[int, float]]
    """Steps with their times in seconds since the epoch, in order."""
    learning_rate: LearningRate = "low"
    """At the last record; of other programs' records it is not known, and they are complete."""

    def names(self, pattern: str | Iterable[str], mode: Mode | None = None) -> list[str]:
        """Return the tensors that one of the regular expressions matches."""
        patterns = [pattern] if isinstance(pattern, str) else list(pattern)
        found = {
            name
            for name, tensor_mode in self.tensors
            if mode in {None, tensor_mode} and any(re.search(regex, name) for regex in patterns)
        }
        return sorted(found)

    def of(self, name: str, mode: Mode) -> list[Record]:
        """Return a tensor's records."""
        return self.tensors.get((name, mode), [])

    def points(self, name: str, reduction: str, mode: Mode) -> list[Point]:
        """Return a reduction of a tensor by step."""
        found = []
        for record in self.of(name, mode):
            value = record.reduction(reduction)
            if value is not None:
                found.append(Point(record.order, record.step, value))
        return found

    def losses(self, mode: Mode, pattern: str | Iterable[str] = LOSSES) -> list[Point]:
        """Return the losses of a mode, averaged if a step has several."""
        by_step: dict[tuple[int, int], list[float]] = {}
        for name in self.names(pattern, mode):
            for point in self.points(name, "mean", mode):
                by_step.setdefault((point.order, point.step), []).append(point.value)
        return [Point(*key, sum(values) / len(values)) for key, values in sorted(by_step.items())]

    @property
    def training(self) -> Mode:
        """The mode of training records: GLOBAL if the script never sets a mode."""
        modes = {mode for _, mode in self.tensors}
        return "TRAIN" if "TRAIN" in modes or "GLOBAL" not in modes else "GLOBAL"
