"""The profiler of one process: samples system metrics, times phases and sums up operators."""

import json
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import psutil

from container.debugger.profiler import timeline
from container.debugger.profiler.operators import OperatorSampler
from container.debugger.profiler.system_metrics import INTERVAL_SECONDS, SystemSampler
from container.debugger.profiler.timeline import Timeline

logger = logging.getLogger(__name__)

# The values that SageMaker's API accepts, in milliseconds.
INTERVALS = (100, 200, 500, 1000, 5000, 60_000)

DEFAULT_NODE = "algo-1"


def interval_of(path: Path) -> float | None:
    """Return the sampling interval of profilerconfig.json in seconds; None if it is disabled.

    Only two settings of the file are read: smdebug itself evaluates others as Python.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        document = {}
    except (OSError, ValueError, RecursionError) as error:
        logger.warning("debugger: %s is not JSON (%s): the profiler uses defaults", path, error)
        document = {}
    items = document.items() if isinstance(document, dict) else ()
    given = {str(key).lower(): str(value) for key, value in items}
    if given.get("disableprofiler", "").lower() == "true":
        return None
    try:
        interval = int(given.get("profilingintervalinmilliseconds", ""))
    except ValueError:
        return INTERVAL_SECONDS
    return interval / 1000 if interval in INTERVALS else INTERVAL_SECONDS


class Profiler:
    """Writes the files of a profile below `directory` until it is closed."""

    def __init__(
        self,
        directory: Path,
        node: str,
        interval_seconds: float,
        wait_for_device: Callable[[], None] | None,
    ) -> None:
        """Start the sampling thread; `wait_for_device` synchronizes the GPU, if there is one."""
        self.directory = directory
        self._node = node if node.startswith("algo-") else DEFAULT_NODE
        self._timeline = Timeline(directory, self._node, wait_for_device=wait_for_device)
        self._operators = OperatorSampler(has_gpu=wait_for_device is not None)
        self._sampler = SystemSampler(directory, self._node, interval_seconds)
        self._sampler.start()
        self._has_stepped = False

    def begin_step(self, number: int) -> None:
        """Set the step of the next phases; the first step ends the initialization."""
        if not self._has_stepped:
            self._has_stepped = True
            # The program has read its images by now.
            start = psutil.Process().create_time()
            self._timeline.add(timeline.INITIALIZATION, start, time.time() - start)
        self._timeline.begin_step(number)

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Return a context manager that times a phase."""
        timed = self._timeline.phase(name)
        return self._operators.step(timed) if name == timeline.STEP else timed

    def close(self) -> None:
        """Stop the thread and write the remaining data."""
        self._sampler.stop()
        self._timeline.flush()
        self._operators.write(self.directory, self._node)
