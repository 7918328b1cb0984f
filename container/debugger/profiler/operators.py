"""Which of PyTorch's operators a step's time goes to, seen in a few steps by torch's profiler."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from container.debugger.profiler.reading import Operator

logger = logging.getLogger(__name__)

# Steps that come first: they allocate memory, choose algorithms and compile.
BEFORE, STEPS = 5, 3

# Of a table, the longest first.
MAX_OPERATORS = 100


class OperatorSampler:
    """Watches some steps of this process from within, and sums their operators up."""

    def __init__(self, *, has_gpu: bool) -> None:
        """Begin with no step seen."""
        self._activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA][: 1 + has_gpu]
        self._seen = 0
        self._operators: dict[str, Operator] = {}

    def step(self, timed: AbstractContextManager[None]) -> AbstractContextManager[None]:
        """Return the context of a step, and watch its operators if it is one of those."""
        self._seen += 1
        # It would end another profiler's session, a person's own.
        is_free = not torch._C._autograd._profiler_enabled()  # noqa: SLF001
        if not (BEFORE < self._seen <= BEFORE + STEPS and is_free):
            return timed
        # Else it says of every session, on standard error, that it begins and ends.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        watching = profile(activities=self._activities, acc_events=True)
        try:
            watching.start()
        except Exception as error:  # noqa: BLE001 - the training continues whatever it is
            logger.warning("debugger: operators are not seen: %s", error)
            return timed
        return self._watched(timed, watching)

    @contextmanager
    def _watched(self, timed: AbstractContextManager[None], watching: profile) -> Iterator[None]:
        try:
            with timed:
                yield
        finally:
            watching.stop()
        self._add(watching)

    def write(self, directory: Path, node: str) -> None:
        """Write what was seen below the profiler's directory, if there was anything."""
        if not self._operators:
            return
        longest = sorted(self._operators.values(), key=lambda each: -each.cpu_us - each.gpu_us)
        rows = [each._asdict() for each in longest[:MAX_OPERATORS]]
        folder = directory / "framework" / "operators"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{node}.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")

    def _add(self, watched: profile) -> None:
        for row in watched.key_averages():
            # A GPU's kernels are counted with the operators that began them.
            if row.device_type != DeviceType.CPU or row.key.startswith("ProfilerStep"):
                continue
            before = self._operators.get(row.key, Operator(row.key, 0, 0.0, 0.0))
            self._operators[row.key] = Operator(
                row.key,
                before.calls + row.count,
                before.cpu_us + row.self_cpu_time_total,
                before.gpu_us + row.self_device_time_total,
            )
