"""The profiler of one process: samples system metrics, times phases and sums up operators."""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import psutil
import torch
from torch.profiler import DeviceType, ProfilerActivity, profile

from container.debugger.profiler import timeline
from container.debugger.profiler.profile import Operator
from container.debugger.profiler.system_metrics import INTERVAL_SECONDS, SystemSampler
from container.debugger.profiler.timeline import Timeline

logger = logging.getLogger(__name__)

# The values that SageMaker's API accepts, in milliseconds.
INTERVALS = (100, 200, 500, 1000, 5000, 60_000)

# Steps before the profiled ones: they allocate memory, choose algorithms and compile.
SKIPPED, STEPS = 5, 3

# Rows of the table, the longest first.
MAX_OPERATORS = 100


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
        self._node = node if node.startswith("algo-") else "algo-1"
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


class OperatorSampler:
    """Profiles some steps of this process and sums up their operators."""

    def __init__(self, *, has_gpu: bool) -> None:
        """Prepare; with a GPU its kernels are profiled too."""
        self._activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA][: 1 + has_gpu]
        self._steps = 0
        self._operators: dict[str, Operator] = {}

    def step(self, timed: AbstractContextManager[None]) -> AbstractContextManager[None]:
        """Return the context manager of a step, with profiling if it is one of the steps."""
        self._steps += 1
        # Two sessions cannot run at once, and the user's own has priority.
        is_free = not torch._C._autograd._profiler_enabled()  # noqa: SLF001
        if not (SKIPPED < self._steps <= SKIPPED + STEPS and is_free):
            return timed
        # Otherwise it logs to standard error at the begin and end of every session.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        session = profile(activities=self._activities, acc_events=True)
        try:
            session.start()
        except Exception as error:  # noqa: BLE001 - the training continues after any error
            logger.warning("debugger: operators are not profiled: %s", error)
            return timed
        return self._profiled(timed, session)

    @contextmanager
    def _profiled(self, timed: AbstractContextManager[None], session: profile) -> Iterator[None]:
        try:
            with timed:
                yield
        finally:
            session.stop()
        for row in session.key_averages():
            # A GPU's kernels are counted with the operators that launched them.
            if row.device_type != DeviceType.CPU or row.key.startswith("ProfilerStep"):
                continue
            before = self._operators.get(row.key, Operator(row.key, 0, 0.0, 0.0))
            self._operators[row.key] = Operator(
                row.key,
                before.calls + row.count,
                before.cpu_us + row.self_cpu_time_total,
                before.gpu_us + row.self_device_time_total,
            )

    def write(self, directory: Path, node: str) -> None:
        """Write the table below the profiler's directory, unless it is empty."""
        if not self._operators:
            return
        longest = sorted(self._operators.values(), key=lambda row: -row.cpu_us - row.gpu_us)
        rows = [row._asdict() for row in longest[:MAX_OPERATORS]]
        folder = directory / "framework" / "operators"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{node}.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
