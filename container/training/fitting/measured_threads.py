"""The number of compute threads: half of them if a measurement shows that they are faster.

The threads of an operation wait for the last one. Beside another program the last one is late by
time slices of the scheduler, in each of the thousands of small operations of a training step.
"""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from time import perf_counter

import torch
from torch import nn

from container.training.sagemaker.supervisor import THREADS_VARIABLE

logger = logging.getLogger(__name__)

# The key of the number of threads in a checkpoint.
STATE = "threads"

# Half of the threads are used if they take at most this part of the time.
GAIN = 0.8

# Other programs start and end, so the measurement is repeated, but not more often.
INTERVAL_SECONDS = 60.0

# Rounds of a measurement end after so many seconds. Each has both numbers of threads.
LIMIT_SECONDS = 0.2

# The images, channels and pixels of a measured convolution, as in the last layers of a network:
# the threads of a larger one wait less often.
SHAPE = (8, 64, 14, 14)

# Convolutions of a round, which take milliseconds on an idle core.
REPETITIONS = 16


class ComputeThreads:
    """Sets the faster number of PyTorch's threads: all threads, or half of them."""

    def __init__(self, *, is_measured: bool) -> None:
        """Nothing is measured on a GPU or if the user or a CPU quota has set the number."""
        self._count = torch.get_num_threads()
        self._is_measured = (
            is_measured
            and self._count > 1
            and THREADS_VARIABLE not in os.environ
            and not torch.cuda.is_available()
        )
        self._measured_at = -math.inf

    def choose(self) -> None:
        """Measure both numbers, and set the faster one, if the last measurement is old."""
        if not self._is_measured or perf_counter() < self._measured_at + INTERVAL_SECONDS:
            return
        before, half = torch.get_num_threads(), self._count // 2
        seconds = _measure((self._count, half))
        self._measured_at = perf_counter()
        is_busy = seconds[half] <= GAIN * seconds[self._count]
        torch.set_num_threads(half if is_busy else self._count)
        if before != torch.get_num_threads():
            found = " ".join(f"{count}={1000 * value:.1f}ms" for count, value in seconds.items())
            programs = "other programs use" if is_busy else "no other program uses"
            logger.info("measured compute threads: %s, %s the CPUs", found, programs)

    def restore(self, state: Mapping[str, object] | None) -> None:
        """Set the number of a checkpoint, if it has one: another number rounds results differently.

        At most the number of all threads is set.
        """
        count = (state or {}).get(STATE)
        if self._is_measured and isinstance(count, int):
            torch.set_num_threads(max(1, min(count, self._count)))


def _measure(counts: Sequence[int]) -> dict[int, float]:
    """Return the mean seconds of a round with each number of threads. They take turns."""
    seconds, rounds = dict.fromkeys(counts, 0.0), 0
    with torch.random.fork_rng(devices=()), torch.inference_mode():
        convolution = nn.Conv2d(SHAPE[1], SHAPE[1], 3, padding=1)
        images = torch.zeros(SHAPE).to(memory_format=torch.channels_last)
        end = perf_counter() + LIMIT_SECONDS
        while not rounds or perf_counter() < end:
            for count in counts:
                torch.set_num_threads(count)
                convolution(images)  # starts the threads
                start = perf_counter()
                for _ in range(REPETITIONS):
                    convolution(images)
                seconds[count] += perf_counter() - start
            rounds += 1
    return {count: total / rounds for count, total in seconds.items()}
