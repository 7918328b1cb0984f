"""Time of PyTorch's operators in a few steps, measured by torch's profiler."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from container.debugger.profiler.profile import Operator

logger = logging.getLogger(__name__)

# Steps before the profiled ones: they allocate memory, choose algorithms and compile.
SKIPPED, STEPS = 5, 3

# Rows of the table, the longest first.
MAX_OPERATORS = 100


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
        longest = sorted(self._operators.values(), key=lambda each: -each.cpu_us - each.gpu_us)
        rows = [each._asdict() for each in longest[:MAX_OPERATORS]]
        folder = directory / "framework" / "operators"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{node}.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
