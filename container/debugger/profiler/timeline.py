"""Durations of the phases of steps, written to SageMaker's files.

The files also open in Perfetto and in chrome://tracing.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from container.debugger.profiler.system_metrics import hour

logger = logging.getLogger(__name__)

# smdebug's names, where smdebug has the phase.
STEP, EVALUATION, INITIALIZATION = "Step:ModeKeys.TRAIN", "Step:ModeKeys.EVAL", "Initialization"
DATA, COPY, FORWARD = "DataLoaderIter", "Copy", "Forward"
BACKWARD, OPTIMIZER, CHECKPOINT = "Backward(post-forward)", "Optimizer", "Checkpoint"
PHASES = (DATA, COPY, FORWARD, BACKWARD, OPTIMIZER)

# Steps between two timed ones on a GPU: a timed step synchronizes the device after each phase.
GPU_INTERVAL = 20

# Events of a file, and of a whole run: 150 bytes each.
FILE_EVENTS, RUN_EVENTS = 20_000, 400_000

# Steps that are all timed on a CPU, and the interval after them.
ALL_STEPS, LATER_INTERVAL = 2_000, 10

_MICRO = 1e6


class Event(NamedTuple):
    """A phase of a step."""

    name: str
    start: float
    """In seconds since the epoch."""

    seconds: float
    step: int


class Timeline:
    """Collects events of one process and writes them to files."""

    def __init__(
        self, directory: Path, node: str, *, wait_for_device: Callable[[], None] | None
    ) -> None:
        """Write below `directory`; `wait_for_device` synchronizes the GPU, if there is one."""
        self._directory, self._node, self._wait = directory, node, wait_for_device
        self._events: list[Event] = []
        self._written, self._step, self._is_timed = 0, 0, True

    def begin_step(self, number: int) -> None:
        """Set the step of the next events."""
        self._step = number
        interval = GPU_INTERVAL if self._wait else 1 if number < ALL_STEPS else LATER_INTERVAL
        self._is_timed = number % interval == 0 and self._written < RUN_EVENTS

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the block."""
        if not self._is_timed:
            yield
            return
        start = time.time()
        yield
        if self._wait is not None:
            self._wait()
        self.add(name, start, time.time() - start)

    def add(self, name: str, start: float, seconds: float) -> None:
        """Add an event that started at `start` seconds since the epoch."""
        self._events.append(Event(name, start, seconds, self._step))
        if len(self._events) >= FILE_EVENTS:
            try:
                self.flush()
            except OSError as error:
                logger.warning("debugger: timing of phases has stopped: %s", error)
                self._written = RUN_EVENTS

    def flush(self) -> None:
        """Write the events to a new file."""
        if not self._events:
            return
        events, self._events = self._events, []
        self._written += len(events)
        origin = min(event.start for event in events)
        end = max(event.start + event.seconds for event in events)
        names = list(dict.fromkeys(event.name for event in events))
        document = [_metadata(0, start_time_since_epoch_in_micros=int(origin * _MICRO))]
        document += [_metadata(pid, name=name) for pid, name in enumerate(names)]
        document += [
            {
                "name": event.name,
                "pid": names.index(event.name),
                "ph": "X",
                "ts": int((event.start - origin) * _MICRO),
                "dur": int(event.seconds * _MICRO),
                "args": {"pid": 0, "step_num": str(event.step)},
            }
            for event in events
        ]
        folder = self._directory / "framework" / "pevents" / hour(end)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{int(end * _MICRO)}_{self._node}_pythontimeline.json"
        path.write_text(json.dumps(document), encoding="utf-8")


def _metadata(pid: int, **values: object) -> dict[str, object]:
    return {"name": "process_name", "ph": "M", "pid": pid, "args": values}
