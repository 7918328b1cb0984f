"""Measurement of the precisions: the server serves the fastest one, not the newest instructions."""

import fcntl
import functools
import logging
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import perf_counter
from typing import TypeAlias

import numpy as np

from container.classifier.errors import ArtifactError
from container.classifier.preprocessing import Pixels
from container.serving.limits import heartbeat_dir
from container.serving.model.outcome import Probabilities

logger = logging.getLogger(__name__)

Predict: TypeAlias = Callable[[Pixels], Probabilities]
"""Turn uint8 (image_size, image_size, 3) into probabilities."""

# At most so many seconds of predictions, after one of each precision.
ROUNDS_SECONDS = 0.02

# No other precision is compiled after so many seconds: the server must start.
LIMIT_SECONDS = 0.1

# A precision is served instead of a preferred one if it takes at most this part of its time. A
# smaller difference is noise: instances of one endpoint would choose differently.
GAIN = 0.95


class Choice:
    """The precision that all worker processes serve: the first one measures it.

    Create it before the processes are forked.
    """

    def __init__(self) -> None:
        """Create an unnamed file."""
        self._file = tempfile.TemporaryFile(dir=heartbeat_dir())  # noqa: SIM115 - kept open

    def close(self) -> None:
        """Remove the file."""
        self._file.close()

    def get(self, measure: Callable[[], str]) -> str:
        """Return the precision that another process has measured, or else measure it."""
        # A lock of this process; all processes have inherited the same open file.
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            chosen = os.pread(self._file.fileno(), 100, 0).decode() or measure()
            # On a full disk each process measures.
            with suppress(OSError):
                os.pwrite(self._file.fileno(), chosen.encode(), 0)
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)
        return chosen


@functools.cache
def shared_choice() -> Choice:
    """Return the choice of this process and of all that are forked after the first call."""
    return Choice()


def fastest(
    served: str,
    predict: Predict,
    others: Sequence[str],
    load: Callable[[str], Predict],
    image_size: int,
) -> str:
    """Return the precision that predicts an image in the shortest time.

    Args:
        served: The precision that is loaded.
        predict: Predicts with it.
        others: Further precisions, the preferred ones first.
        load: Loads a network in another precision; ArtifactError if it cannot.
        image_size: Width and height of an image in pixels.
    """
    if not others:
        return served
    start = perf_counter()
    limit = start + LIMIT_SECONDS
    image = np.zeros((image_size, image_size, 3), np.uint8)
    best, measured = served, {served: math.inf}
    for precision in others:
        if perf_counter() > limit:
            break
        try:
            challenger = load(precision)
        except ArtifactError as error:
            logger.warning("%s is not measured: %s", precision, error)
            # This took no time from the measurement of the next one.
            limit = perf_counter() + LIMIT_SECONDS
            continue
        first, measured[precision] = _seconds([predict, challenger], image)
        measured[served] = min(measured[served], first)
        if measured[precision] < GAIN * measured[best]:
            best = precision
    found = " ".join(f"{name}_ms={1000 * value:.2f}" for name, value in measured.items())
    logger.info("fastest=%s %s measured_in=%.2fs", best, found, perf_counter() - start)
    return best


def _seconds(functions: Sequence[Predict], image: Pixels) -> Sequence[float]:
    """Return the shortest time of each function. They take turns: other load slows all of them."""
    shortest = [math.inf] * len(functions)
    end = perf_counter() + ROUNDS_SECONDS
    while True:
        for number, predict in enumerate(functions):
            start = perf_counter()
            predict(image)
            shortest[number] = min(shortest[number], perf_counter() - start)
        if perf_counter() > end:
            return shortest
