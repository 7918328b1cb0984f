"""A profile: system metrics, timed phases and operators, read from SageMaker's profiler files."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from container.classifier.errors import UserError
from container.debugger.profiler import timeline
from container.debugger.profiler.timeline import Event

# In bytes, of one file.
MAX_SIZE = 256 * 2**20

GPU, GPU_MEMORY = ("gpu", "GPUUtilization"), ("gpu", "GPUMemoryUtilization")
CPU, IO_WAIT = ("cpu", "CPUUtilization"), ("cpu", "I/OWaitPercentage")

# Titles of SageMaker's other metrics, each with the size of its unit.
TITLES = {
    "MemoryUsedPercent": ("memory, %", 1),
    "IOPS": ("disk operations, 1/s", 1),
    "ReadThroughputInBytesPerSecond": ("disk read, MB/s", 1e6),
    "WriteThroughputInBytesPerSecond": ("disk written, MB/s", 1e6),
    "ReceiveBytesPerSecond": ("network received, MB/s", 1e6),
    "TransmitBytesPerSecond": ("network sent, MB/s", 1e6),
}

_MICRO = 1e6

Series = npt.NDArray[np.float64]
"""Times and values, of shape (N, 2)."""


class Operator(NamedTuple):
    """Self time of a PyTorch operator, without the operators that it calls."""

    name: str
    calls: int
    cpu_us: float
    gpu_us: float


@dataclass(frozen=True, slots=True)
class Profile:
    """Contents of a profiler's files."""

    metrics: dict[tuple[str, ...], list[tuple[float, float]]] = field(default_factory=dict)
    """Times and values by node, type, name and dimension."""

    events: list[Event] = field(default_factory=list)

    operators: list[Operator] = field(default_factory=list)
    """Of a few steps, the longest first."""

    def values(self, kind: str, dimension: str) -> dict[str, Series]:
        """Return the series of a kind and dimension, by node and name."""
        return {
            f"{node}/{name}": np.array(series)
            for (node, own, name, own_dimension), series in self.metrics.items()
            if (own, own_dimension) == (kind, dimension)
        }

    def durations(self, name: str) -> list[Event]:
        """Return the events of a phase."""
        return [event for event in self.events if event.name == name]

    def system_usage(self) -> dict[str, dict[str, float]]:
        """Return percentiles of every system metric, over all CPUs and GPUs of a node.

        The names contain the units; rates of bytes are in MB/s.
        """
        gathered: dict[str, list[float]] = {}
        titles = {CPU: "CPU, %", IO_WAIT: "I/O wait, %", GPU: "GPU, %", GPU_MEMORY: "GPU memory, %"}
        for (node, kind, name, dimension), series in self.metrics.items():
            title, divisor = TITLES.get(name, (f"{name}, {'%' if kind == 'memory' else '1/s'}", 1))
            title = titles.get((kind, dimension), title)
            gathered.setdefault(f"{node}: {title}", []).extend(v / divisor for _, v in series)
        return {name: percentiles(values) for name, values in gathered.items()}

    def phase_seconds(self) -> dict[str, float]:
        """Return the total seconds of every phase; `other` is the rest of the steps' time."""
        totals: dict[str, float] = {}
        for event in self.events:
            totals[event.name] = totals.get(event.name, 0.0) + event.seconds
        step = totals.pop(timeline.STEP, 0.0)
        timed = sum(totals.get(name, 0.0) for name in timeline.PHASES)
        if step > timed:
            totals["other"] = step - timed
        return totals


def read(directory: Path) -> Profile:
    """Read the files below a profiler's directory.

    Raises:
        UserError: there are no files, or one is damaged.
    """
    profile = Profile()
    for pattern, add in (
        ("system/incremental/*/*.json", _add_metrics),
        ("framework/pevents/*/*timeline.json", _add_events),
        # Our own; smdebug's readers ignore it.
        ("framework/operators/*.json", _add_operators),
    ):
        for path in sorted(directory.glob(pattern)):
            if path.stat().st_size > MAX_SIZE:
                raise UserError(
                    f"{path} is larger than any profiler file: {path.stat().st_size} bytes"
                )
            try:
                add(path.read_text(encoding="utf-8", errors="replace"), profile)
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                raise UserError(f"{path} is damaged: {type(error).__name__}: {error}") from None
    if not (profile.metrics or profile.events):
        raise UserError(f"{directory} has no profile: expected the folders system and framework")
    for series in profile.metrics.values():
        series.sort()
    profile.events.sort(key=lambda event: event.start)
    profile.operators.sort(key=lambda operator: -operator.cpu_us - operator.gpu_us)
    return profile


def _add_metrics(text: str, profile: Profile) -> None:
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        try:
            sample = json.loads(line)
            key = tuple(str(sample[name]) for name in ("NodeId", "Type", "Name", "Dimension"))
            pair = float(sample["Timestamp"]), float(sample["Value"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            # The last line may be incomplete: the training is still running, or was killed.
            if number == len(lines):
                return
            raise ValueError(f"line {number}: {type(error).__name__}: {error}") from None
        profile.metrics.setdefault(key, []).append(pair)


def _add_events(text: str, profile: Profile) -> None:
    document = json.loads(text)
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


def _add_operators(text: str, profile: Profile) -> None:
    for row in json.loads(text):
        name, calls = str(row["name"]), int(row["calls"])
        profile.operators.append(Operator(name, calls, float(row["cpu_us"]), float(row["gpu_us"])))


def percentiles(values: Sequence[float] | npt.NDArray[np.float64]) -> dict[str, float]:
    """Return the percentiles of SageMaker's reports."""
    array = np.asarray(values, np.float64)
    found = {"max": float(array.max())}
    found |= {f"p{p}": float(np.percentile(array, p)) for p in (99, 95, 50)}
    return found | {"min": float(array.min())}
