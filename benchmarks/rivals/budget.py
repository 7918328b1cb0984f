"""As many epochs as fit into a budget of processor time, judged by the time of one epoch."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Job:
    """What a program trains, its only command-line argument as JSON."""

    recipe: str
    folder: str
    """With class folders in `train` and `val`."""

    seconds: float
    """Budget of processor time, of all processes and threads."""

    seed: int
    image_size: int

    @classmethod
    def from_command_line(cls) -> "Job":
        """Parse the argument of this program."""
        return cls(**json.loads(sys.argv[1]))


def processor_seconds() -> float:
    """Return the processor time of this process and of its child processes that have ended."""
    return sum(os.times()[:4])


@dataclass(slots=True)
class History:
    """The accuracy of every evaluation, and the processor time at which it ended."""

    start: float
    accuracies: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def add(self, accuracy: float) -> None:
        """Add an evaluation, the end of an epoch."""
        self.accuracies.append(accuracy)
        self.times.append(processor_seconds())


Train: TypeAlias = Callable[[Job, int, History], None]
"""Trains a new network for some epochs and adds each evaluation."""


def run(train: Train) -> None:
    """Train for one epoch, then anew for as many as fit; print a JSON document.

    Its seconds are those of imports and of the longer training. If only one epoch fits, or none,
    the first training counts.
    """
    job, imports = Job.from_command_line(), processor_seconds()
    history = History(imports)
    train(job, 1, history)
    before, end = [history.start, *history.times][-2:]
    epochs = max(1, int((job.seconds - imports - (before - history.start)) / (end - before)))
    if epochs > 1:
        history = History(processor_seconds())
        train(job, epochs, history)
    seconds = imports + history.times[-1] - history.start
    print(json.dumps({"accuracies": history.accuracies, "epochs": epochs, "seconds": seconds}))
