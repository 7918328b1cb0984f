"""Metrics for Prometheus, summed over all workers.

gunicorn's master shares a table in memory with its workers. Each worker writes its own row, without
a lock between processes, and any worker can sum the rows. A worker that replaces a lost one
continues its row, so no counter decreases. The package `prometheus_client` would need a
writable folder and would keep a file in it for every worker that ever ran.
"""

import mmap
import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

# Quoted because memoryview cannot be subscripted at run time before Python 3.14.
Table: TypeAlias = "memoryview[float]"

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

STATUSES = range(100, 600)

REQUEST_STEPS = ("read", "wait")
IMAGE_STEPS = ("decode", "infer")
STEPS = (*REQUEST_STEPS, *IMAGE_STEPS)

# Upper bounds of the histogram buckets, in seconds; one more bucket is unbounded.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

# A row has a counter for each status, four other numbers, and the buckets and sum of each step.
REFUSED = len(STATUSES)
PREDICTED, UNREADABLE, QUEUE = REFUSED + 1, REFUSED + 2, REFUSED + 3
STEP = QUEUE + 1
STEP_NUMBERS = len(BUCKETS) + 2
ROW = STEP + len(STEPS) * STEP_NUMBERS

NUMBER_BYTES = 8

HELP = {
    "requests_total": "Responses by status; without /ping and /metrics.",
    "refused_total": "Requests rejected because too many waited; part of status 503.",
    "images_total": "Images predicted, and those that could not be read.",
    "queue_length": "Requests that wait unread in the admission queue.",
    "seconds": "Seconds to read a body and to wait, per request; to decode and infer, per image.",
}


class Metrics:
    """The metrics of a worker, which can also render those of all workers."""

    def __init__(self, table: "Table | None" = None, row: int = 0) -> None:
        """Continue a row of a table; by default of a new table for one worker."""
        self._table = table = shared_table(1) if table is None else table
        self._row = table[row * ROW : (row + 1) * ROW]
        self._lock = threading.Lock()
        self.note_queue(0)

    def count_request(self, status: int) -> None:
        """Count a response."""
        self._add({status - STATUSES.start: 1})

    def count_refused(self) -> None:
        """Count a rejected request."""
        self._add({REFUSED: 1})

    @property
    def refused(self) -> int:
        """The number of requests that this worker, or the one before it, rejected."""
        return int(self._row[REFUSED])

    def count_images(self, *, predicted: int, unreadable: int) -> None:
        """Count the images of a request."""
        self._add({PREDICTED: predicted, UNREADABLE: unreadable})

    def observe(self, step: str, seconds: Iterable[float]) -> None:
        """Add durations of a step to its histogram."""
        start = STEP + STEPS.index(step) * STEP_NUMBERS
        for took in seconds:
            self._add({start + bisect_left(BUCKETS, took): 1, start + STEP_NUMBERS - 1: took})

    def note_queue(self, length: int) -> None:
        """Set the number of queued requests."""
        self._row[QUEUE] = length

    def render(self) -> str:
        """Return the metrics of all workers in Prometheus' text format."""
        rows = [self._table[start : start + ROW] for start in range(0, len(self._table), ROW)]
        numbers = [sum(column) for column in zip(*rows, strict=True)]
        return "".join(f"{line}\n" for line in _lines(numbers))

    def _add(self, numbers: Mapping[int, float]) -> None:
        with self._lock:
            for column, number in numbers.items():
                self._row[column] += number


def shared_table(rows: int) -> Table:
    """Return a table of zeros that this process shares with its child processes."""
    return memoryview(mmap.mmap(-1, rows * ROW * NUMBER_BYTES)).cast("d")


def _lines(numbers: Sequence[float]) -> Iterator[str]:
    yield from _head("requests_total", "counter")
    for status, number in zip(STATUSES, numbers[: len(STATUSES)], strict=True):
        if number:
            yield f'classifier_requests_total{{status="{status}"}} {number:.0f}'
    yield from _head("refused_total", "counter")
    yield f"classifier_refused_total {numbers[REFUSED]:.0f}"
    yield from _head("images_total", "counter")
    yield f'classifier_images_total{{outcome="predicted"}} {numbers[PREDICTED]:.0f}'
    yield f'classifier_images_total{{outcome="unreadable"}} {numbers[UNREADABLE]:.0f}'
    yield from _head("queue_length", "gauge")
    yield f"classifier_queue_length {numbers[QUEUE]:.0f}"
    yield from _head("seconds", "histogram")
    for index, step in enumerate(STEPS):
        start = STEP + index * STEP_NUMBERS
        yield from _histogram(step, numbers[start : start + STEP_NUMBERS])


def _head(name: str, kind: str) -> Iterator[str]:
    yield f"# HELP classifier_{name} {HELP[name]}"
    yield f"# TYPE classifier_{name} {kind}"


def _histogram(step: str, numbers: Sequence[float]) -> Iterator[str]:
    """Yield the lines of a step, given the count of each bucket and the sum of the seconds."""
    *counts, total = numbers
    cumulative = 0.0
    for end, count in zip((*map(str, BUCKETS), "+Inf"), counts, strict=True):
        cumulative += count
        yield f'classifier_seconds_bucket{{step="{step}",le="{end}"}} {cumulative:.0f}'
    yield f'classifier_seconds_sum{{step="{step}"}} {total:.6f}'
    yield f'classifier_seconds_count{{step="{step}"}} {cumulative:.0f}'
