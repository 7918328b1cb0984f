"""Reads the profiler's files: ours, or those of any SageMaker job."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from container.classifier.errors import UserError

# In bytes, of one file.
MAX_SIZE = 256 * 2**20

# Ours alone; smdebug's readers pass it over.
OPERATORS = "framework/operators/*.json"

_MICRO = 1e6


@dataclass(frozen=True, slots=True)
class Event:
    """A phase of a step."""

    name: str
    start: float
    """In seconds of the epoch."""

    seconds: float
    step: int


class Operator(NamedTuple):
    """What steps spend in one of PyTorch's operators itself, not in those that it calls."""

    name: str
    calls: int
    cpu_us: float
    gpu_us: float


@dataclass(frozen=True, slots=True)
class Profile:
    """What the files say."""

    metrics: dict[tuple[str, str, str, str], list[tuple[float, float]]] = field(
        default_factory=dict
    )
    """Times and values by node, type, name and dimension."""

    events: list[Event] = field(default_factory=list)

    operators: list[Operator] = field(default_factory=list)
    """Of a few steps, the longest first."""

    def values(self, kind: str, dimension: str) -> dict[str, npt.NDArray[np.float64]]:
        """Return the series (N, 2) of a kind and dimension, by node and name."""
        return {
            f"{node}/{name}": np.array(series)
            for (node, own, name, own_dimension), series in self.metrics.items()
            if (own, own_dimension) == (kind, dimension)
        }

    def durations(self, name: str) -> list[Event]:
        """Return the events of a phase."""
        return [event for event in self.events if event.name == name]


def read(directory: Path) -> Profile:
    """Return what lies below the profiler's directory.

    Raises:
        UserError: there is nothing, or it is damaged.
    """
    profile = Profile()
    for path in sorted(directory.glob("system/incremental/*/*.json")):
        _read_system(path, profile)
    for path in sorted(directory.glob("framework/pevents/*/*timeline.json")):
        _read_timeline(path, profile)
    for path in sorted(directory.glob(OPERATORS)):
        _read_operators(path, profile)
    if not (profile.metrics or profile.events):
        message = f"{directory} holds no profile: expected its folders system and framework"
        raise UserError(message)
    for series in profile.metrics.values():
        series.sort()
    profile.events.sort(key=lambda event: event.start)
    profile.operators.sort(key=lambda operator: -operator.cpu_us - operator.gpu_us)
    return profile


def _read_system(path: Path, profile: Profile) -> None:
    lines = _text(path).splitlines()
    for number, line in enumerate(lines):
        try:
            said = json.loads(line)
            key = tuple(str(said[name]) for name in ("NodeId", "Type", "Name", "Dimension"))
            pair = float(said["Timestamp"]), float(said["Value"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            # The last line of a training that continues, or was killed.
            if number == len(lines) - 1:
                return
            message = f"{path} is damaged: line {number + 1}: {type(error).__name__}: {error}"
            raise UserError(message) from None
        profile.metrics.setdefault(key, []).append(pair)  # type: ignore[arg-type]


def _read_timeline(path: Path, profile: Profile) -> None:
    try:
        document = json.loads(_text(path))
        (origin, *_) = [
            float(event["args"]["start_time_since_epoch_in_micros"])
            for event in document
            if "start_time_since_epoch_in_micros" in event.get("args", {})
        ]
        for event in document:
            if event.get("ph") == "X":
                step = re.sub(r"\D", "", str(event.get("args", {}).get("step_num", ""))) or "-1"
                start = (origin + float(event["ts"])) / _MICRO
                seconds = float(event["dur"]) / _MICRO
                profile.events.append(Event(str(event["name"]), start, seconds, int(step)))
    except (
        ValueError,
        TypeError,
        KeyError,
        StopIteration,
        AttributeError,
        RecursionError,
    ) as error:
        message = f"{path} is damaged: {type(error).__name__}: {error}"
        raise UserError(message) from None


def _read_operators(path: Path, profile: Profile) -> None:
    try:
        for row in json.loads(_text(path)):
            own = Operator(
                str(row["name"]), int(row["calls"]), float(row["cpu_us"]), float(row["gpu_us"])
            )
            profile.operators.append(own)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        message = f"{path} is damaged: {type(error).__name__}: {error}"
        raise UserError(message) from None


def _text(path: Path) -> str:
    if path.stat().st_size > MAX_SIZE:
        message = f"{path} is larger than any file of a profile"
        raise UserError(message)
    return path.read_text(encoding="utf-8", errors="replace")


def percentiles(values: Sequence[float] | npt.NDArray[np.float64]) -> dict[str, float]:
    """Return what SageMaker's reports say of a series."""
    array = np.asarray(values, np.float64)
    found = {"max": float(array.max())}
    found |= {f"p{p}": float(np.percentile(array, p)) for p in (99, 95, 50)}
    return found | {"min": float(array.min())}
