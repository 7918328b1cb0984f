"""Writes how long each phase of a step takes, into SageMaker's files.

They open in Perfetto and in chrome://tracing as well.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from container.debugger.profiler.system_metrics import hour

logger = logging.getLogger(__name__)

# As smdebug's readers know them, where they do.
STEP, EVALUATION, INITIALIZATION = "Step:ModeKeys.TRAIN", "Step:ModeKeys.EVAL", "Initialization"
DATA, COPY, FORWARD = "DataLoaderIter", "Copy", "Forward"
BACKWARD, OPTIMIZER, CHECKPOINT = "Backward(post-forward)", "Optimizer", "Checkpoint"
PHASES = (DATA, COPY, FORWARD, BACKWARD, OPTIMIZER)

# Of a GPU, which works on while the program waits for nothing: every so many steps are timed, and
# the device waited for at the end of each of their phases.
GPU_INTERVAL = 20

# Events of a file, and of a whole run: 150 bytes each.
FILE_EVENTS, RUN_EVENTS = 20_000, 400_000

# Events of the beginning that are all kept; afterwards of every so many steps.
ALL_STEPS, LATER_INTERVAL = 2_000, 10

_MICRO = 1e6


class Timeline:
    """Keeps events of one process and writes them as files."""

    def __init__(
        self, directory: Path, node: str, *, wait_for_device: Callable[[], None] | None
    ) -> None:
        """Write below `directory`; `wait_for_device` is a GPU's, None where there is none."""
        self._directory, self._node, self._wait = directory, node, wait_for_device
        self._events: list[dict[str, object]] = []
        self._written, self._step, self._is_timed = 0, 0, True

    def begin_step(self, number: int) -> None:
        """Say to which step the next events belong."""
        self._step = number
        interval = GPU_INTERVAL if self._wait else 1 if number < ALL_STEPS else LATER_INTERVAL
        self._is_timed = number % interval == 0 and self._written < RUN_EVENTS

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what is done within."""
        if not self._is_timed:
            yield
            return
        start = time.time()
        yield
        if self._wait is not None:
            self._wait()
        self.add(name, start, time.time() - start)

    def add(self, name: str, start: float, seconds: float) -> None:
        """Add an event, of seconds since the epoch."""
        self._events.append({"name": name, "start": start, "seconds": seconds, "step": self._step})
        if len(self._events) >= FILE_EVENTS:
            try:
                self.flush()
            except OSError as error:
                logger.warning("debugger: no more phases are timed: %s", error)
                self._written = RUN_EVENTS

    def flush(self) -> None:
        """Write the events to a file of their own."""
        if not self._events:
            return
        events, self._events = self._events, []
        self._written += len(events)
        origin = min(float(str(event["start"])) for event in events)
        names = list(dict.fromkeys(str(event["name"]) for event in events))
        document: list[dict[str, object]] = [
            {
                "name": "process_name",
                "ph": "M",
                "pid": 0,
                "args": {"start_time_since_epoch_in_micros": int(origin * _MICRO)},
            }
        ]
        for number, name in enumerate(names):
            arguments = {"name": name}
            document.append({"name": "process_name", "ph": "M", "pid": number, "args": arguments})
        end = origin
        for event in events:
            start, seconds = float(str(event["start"])), float(str(event["seconds"]))
            end = max(end, start + seconds)
            document.append(
                {
                    "name": event["name"],
                    "pid": names.index(str(event["name"])),
                    "ph": "X",
                    "ts": int((start - origin) * _MICRO),
                    "dur": int(seconds * _MICRO),
                    "args": {"pid": 0, "step_num": str(event["step"])},
                }
            )
        folder = self._directory / "framework" / "pevents" / hour(end)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{int(end * _MICRO)}_{self._node}_pythontimeline.json"
        path.write_text(json.dumps(document), encoding="utf-8")
