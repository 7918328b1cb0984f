"""The profiler of one process: a thread for the system, and a timeline."""

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

# As SageMaker's API has them, in milliseconds.
INTERVALS = (100, 200, 500, 1000, 5000, 60_000)

DEFAULT_NODE = "algo-1"


def interval_of(path: Path) -> float | None:
    """Return the seconds between two samples by profilerconfig.json; None: there is no profiler.

    Of the file these two settings alone are read: smdebug itself evaluates others as Python.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return INTERVAL_SECONDS
    except (OSError, ValueError, RecursionError) as error:
        logger.warning("debugger: %s is not JSON (%s): the profiler's defaults hold", path, error)
        return INTERVAL_SECONDS
    given = (
        {str(key).lower(): value for key, value in document.items()}
        if isinstance(document, dict)
        else {}
    )
    if str(given.get("disableprofiler", False)).lower() == "true":
        return None
    try:
        wanted = int(str(given.get("profilingintervalinmilliseconds", 500)))
    except ValueError:
        return INTERVAL_SECONDS
    return wanted / 1000 if wanted in INTERVALS else INTERVAL_SECONDS


class Profiler:
    """Samples the system and times phases until it is closed."""

    def __init__(
        self,
        directory: Path,
        node: str,
        interval_seconds: float,
        wait_for_device: Callable[[], None] | None,
    ) -> None:
        """Begin; files go below `directory`."""
        self.directory = directory
        name = node if node.startswith("algo-") else DEFAULT_NODE
        self._timeline = Timeline(directory, name, wait_for_device=wait_for_device)
        self._sampler = SystemSampler(directory, name, interval_seconds)
        self._operators = OperatorSampler(has_gpu=wait_for_device is not None)
        self._name = name
        self._sampler.start()
        # Of the program: it has read its images by now.
        self._begun = psutil.Process().create_time()
        self._has_stepped = False

    def begin_step(self, number: int) -> None:
        """Hear of a step before it is made."""
        if not self._has_stepped:
            self._has_stepped = True
            now = time.time()
            self._timeline.add(timeline.INITIALIZATION, self._begun, now - self._begun)
        self._timeline.begin_step(number)

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Return the context that is timed."""
        timed = self._timeline.phase(name)
        return self._operators.step(timed) if name == timeline.STEP else timed

    def close(self) -> None:
        """Stop the thread and write what is left."""
        self._sampler.stop()
        self._timeline.flush()
        self._operators.write(self.directory, self._name)
