"""Metrics for Prometheus, summed over all workers.

gunicorn's master shares a table in memory with its workers. Each worker writes its own row without
a lock between processes, and any worker can sum the rows. The replacement of a lost worker
continues its row, so that no counter decreases. The package `prometheus_client` would need a
writable folder and would keep a file in it for every worker that ever ran.

gunicorn's master imports this module: standard library only.
"""

import mmap
import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Self, TypeAlias

# memoryview[int] is the default of type checkers.
Table: TypeAlias = "memoryview[float]"

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

STATUSES = range(100, 600)

REQUEST_STEPS = ("read", "wait")
IMAGE_STEPS = ("decode", "infer")
STEPS = (*REQUEST_STEPS, *IMAGE_STEPS)

# Upper ends of a step's buckets, in seconds; the last one has none.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

# A row: a number for every status, four others, and for every step its buckets and its sum.
REFUSED = len(STATUSES)
PREDICTED, UNREADABLE, QUEUE = REFUSED + 1, REFUSED + 2, REFUSED + 3
STEP = QUEUE + 1
STEP_NUMBERS = len(BUCKETS) + 2
ROW = STEP + len(STEPS) * STEP_NUMBERS

NUMBER_BYTES = 8

HELP = {
    "requests_total": "Requests answered, by status; without /ping and /metrics.",
    "refused_total": "Requests refused because too many waited, among those with status 503.",
    "pictures_total": "Images predicted, and those that could not be read.",
    "queue_length": "Requests that wait unread on their connections.",
    "seconds": "Seconds of a request's body and wait, and of an image's decoding and inference.",
}


class Metrics:
    """A worker's row, and sight of all."""

    def __init__(self, table: Table, row: int) -> None:
        """Continue a row."""
        self._table = table
        self._row = table[row * ROW : (row + 1) * ROW]
        self._lock = threading.Lock()
        self.note_queue(0)

    @classmethod
    def alone(cls) -> Self:
        """Return those of a process that shares them with none."""
        return cls(shared_table(1), 0)

    def count_request(self, status: int) -> None:
        """Count an answer."""
        self._add({status - STATUSES.start: 1})

    def count_refused(self) -> None:
        """Count a request as refused."""
        self._add({REFUSED: 1})

    def count_images(self, *, predicted: int, unreadable: int) -> None:
        """Count a request's images."""
        self._add({PREDICTED: predicted, UNREADABLE: unreadable})

    def observe(self, step: str, seconds: Iterable[float]) -> None:
        """Note how long a step took, each time."""
        start = STEP + STEPS.index(step) * STEP_NUMBERS
        for took in seconds:
            self._add({start + bisect_left(BUCKETS, took): 1, start + STEP_NUMBERS - 1: took})

    def note_queue(self, length: int) -> None:
        """Note how many wait."""
        self._row[QUEUE] = length

    def render(self) -> str:
        """Return what Prometheus reads, of all workers."""
        rows = [self._table[start : start + ROW] for start in range(0, len(self._table), ROW)]
        numbers = [sum(column) for column in zip(*rows, strict=True)]
        return "".join(f"{line}\n" for line in _lines(numbers))

    def _add(self, numbers: Mapping[int, float]) -> None:
        with self._lock:
            for place, number in numbers.items():
                self._row[place] += number


def shared_table(rows: int) -> Table:
    """Return room for as many workers, zeros, which this process's children will share."""
    return memoryview(mmap.mmap(-1, rows * ROW * NUMBER_BYTES)).cast("d")


def _lines(numbers: Sequence[float]) -> Iterator[str]:
    yield from _head("requests_total", "counter")
    for status, number in zip(STATUSES, numbers[: len(STATUSES)], strict=True):
        if number:
            yield f'classifier_requests_total{{status="{status}"}} {number:.0f}'
    yield from _head("refused_total", "counter")
    yield f"classifier_refused_total {numbers[REFUSED]:.0f}"
    yield from _head("pictures_total", "counter")
    yield f'classifier_pictures_total{{outcome="predicted"}} {numbers[PREDICTED]:.0f}'
    yield f'classifier_pictures_total{{outcome="unreadable"}} {numbers[UNREADABLE]:.0f}'
    yield from _head("queue_length", "gauge")
    yield f"classifier_queue_length {numbers[QUEUE]:.0f}"
    yield from _head("seconds", "histogram")
    for place, step in enumerate(STEPS):
        start = STEP + place * STEP_NUMBERS
        yield from _histogram(step, numbers[start : start + STEP_NUMBERS])


def _head(name: str, kind: str) -> Iterator[str]:
    yield f"# HELP classifier_{name} {HELP[name]}"
    yield f"# TYPE classifier_{name} {kind}"


def _histogram(step: str, numbers: Sequence[float]) -> Iterator[str]:
    """Yield the lines of a step; its numbers are those in each bucket, and their sum."""
    *counts, total = numbers
    up_to = 0.0
    for end, count in zip((*map(str, BUCKETS), "+Inf"), counts, strict=True):
        up_to += count
        yield f'classifier_seconds_bucket{{step="{step}",le="{end}"}} {up_to:.0f}'
    yield f'classifier_seconds_sum{{step="{step}"}} {total:.6f}'
    yield f'classifier_seconds_count{{step="{step}"}} {up_to:.0f}'
