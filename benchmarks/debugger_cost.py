"""Cost of recording in ResNet-18's steps: the observer's share of their time.

    OMP_NUM_THREADS=1 python -m benchmarks.debugger_cost

Images are noise of 64 x 64 pixels in batches of 32: steps are short, so that recording has a larger
share than at 224 pixels. `default` is the policy of a run of 2,000 steps; `tensors` records losses
every 10 steps, and reductions of weights and gradients every 100. Steps that record tensors, a loss
and nothing alternate, and the sum of their medians is weighted by frequency. On a shared machine
two runs differ by more than the measured cost. Therefore each call of the observer is timed within
the real step, and the CPU time of all other threads, which write files and sample system metrics,
is added. Elapsed time includes only the calls, because other threads run in parallel.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ParamSpec, Self, TypeVar

import numpy as np
import torch
from torchvision import models

from benchmarks.conditions import print_results
from container.debugger.profiler.timeline import STEP
from container.debugger.recording.debug_session import Observer, Settings
from container.debugger.recording.hook_configuration import REDUCTIONS, default_collections
from container.networks.network import Classifier
from container.training.data.images import ImageSet
from container.training.device import Arithmetic
from container.training.fitting.cluster import Cluster
from container.training.fitting.step import TrainingStep
from container.training.hyperparameters import Hyperparameters

BATCH, SIDE, TOTAL_STEPS = 32, 64, 2000

# Steps between two records of all tensors, and of the loss.
TENSORS, LOSSES = 100, 10

SHARES = {"tensors": 1 / TENSORS, "loss": 1 / LOSSES - 1 / TENSORS, "nothing": 1 - 1 / LOSSES}


def collections(policy: str) -> list[dict[str, object]]:
    """Return a policy's collections."""
    if policy == "default":
        return default_collections(TOTAL_STEPS)
    tensors = {"train.save_interval": str(TENSORS), "reductions": REDUCTIONS}
    return [
        {
            "CollectionName": "losses",
            "CollectionParameters": {"train.save_interval": str(LOSSES)},
        },
        {"CollectionName": "weights", "CollectionParameters": tensors},
        {"CollectionName": "gradients", "CollectionParameters": tensors},
    ]


P = ParamSpec("P")
R = TypeVar("R")


class TimedObserver(Observer):
    """An observer that sums up the time of its calls."""

    def __init__(self, settings: Settings) -> None:
        """Start at zero."""
        super().__init__(settings)
        self.seconds = Times(0.0, 0.0)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time entering and leaving the block, but not the block."""
        context = super().phase(name)
        self.timed(context.__enter__)
        try:
            yield
        finally:
            self.timed(context.__exit__, None, None, None)

    def timed(self, call: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
        """Call a function and add its time."""
        before = Times.now()
        result = call(*arguments, **named)
        self.seconds += Times.now() - before
        return result


def _time_calls(observer: TimedObserver) -> None:
    for name in ("begin_step", "batch", "gradients", "updated", "loss"):
        setattr(observer, name, partial(observer.timed, getattr(observer, name)))


@dataclass(frozen=True, slots=True)
class Times:
    """This thread's CPU time and the elapsed time, in seconds."""

    own: float
    clock: float

    @classmethod
    def now(cls) -> Self:
        """Return the time."""
        return cls(time.thread_time(), time.perf_counter())

    def __add__(self, other: Self) -> "Times":
        """Return the sum."""
        return Times(self.own + other.own, self.clock + other.clock)

    def __sub__(self, other: Self) -> "Times":
        """Return the difference."""
        return Times(self.own - other.own, self.clock - other.clock)


def measure(policy: str, rounds: int) -> Mapping[str, float]:
    """Return the cost of an observer in steps of each kind, and in total."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (BATCH, SIDE, SIDE, 3), np.uint8)
    images = ImageSet(pixels, random.integers(0, 10, BATCH), (Path("x"),) * BATCH, "")
    network = models.resnet18(num_classes=10)
    classifier = Classifier(network).to(memory_format=torch.channels_last).train()
    groups = [{"params": list(network.parameters()), "factor": 1.0}]
    step = TrainingStep(
        torch.optim.SGD(groups, lr=0.0, momentum=0.9),
        images,
        Hyperparameters(augment=False),
        arithmetic=Arithmetic(torch.device("cpu"), torch.float32),
        cluster=Cluster(0, 1),
        half_size_steps=0,
        class_weights=None,
    )
    taken: dict[str, list[tuple[Times, Times, float]]] = {kind: [] for kind in SHARES}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "debughookconfig.json")
        path.write_text(json.dumps({"CollectionConfigurations": collections(policy)}))
        settings = Settings(
            configuration_path=path,
            profiler_configuration_path=Path(directory, "none"),
            output_dir=Path(directory),
            rules="none",
            is_required=True,
        )
        observer = TimedObserver(settings)
        observer.start(
            network, classifier.normalize, total_steps=TOTAL_STEPS, first_step=0, epoch=0
        )
        _time_calls(observer)
        offsets = {"tensors": 0, "loss": LOSSES, "nothing": LOSSES + 1}
        for turn in range(-1, rounds):
            for kind, offset in offsets.items():
                number = TENSORS * (turn + 1) + offset
                found = _time(step, classifier, number, observer)
                # The first round is a warm-up.
                if turn >= 0:
                    taken[kind].append(found)
        observer.close()
    return _slowdown(taken)


def _time(
    step: TrainingStep, model: Classifier, number: int, observer: TimedObserver
) -> tuple[Times, Times, float]:
    """Return the times of a step and of the observer, and the CPU time of other threads."""
    observer.seconds = Times(0.0, 0.0)
    process, start = time.process_time(), Times.now()
    observer.begin_step(number, 0)
    with observer.phase(STEP):
        step(model, number, np.arange(BATCH), 0.0, observer)
    # It finishes the files of the previous step.
    observer.begin_step(number + 2, 0)
    all_of_it = Times.now() - start
    others = time.process_time() - process - all_of_it.own
    return all_of_it, observer.seconds, others


def _slowdown(taken: Mapping[str, Sequence[tuple[Times, Times, float]]]) -> dict[str, float]:
    every = [each for several in taken.values() for each in several]
    plain = statistics.median(whole.own - own.own for whole, own, _ in every)
    plain_clock = statistics.median(whole.clock - own.clock for whole, own, _ in every)
    extra = {
        kind: statistics.median(own.own + others for _, own, others in several)
        for kind, several in taken.items()
    }
    waits = {
        kind: statistics.median(own.clock for _, own, _ in several)
        for kind, several in taken.items()
    }
    return {
        "step_ms": 1000 * plain,
        **{f"{kind}_extra_ms": 1000 * seconds for kind, seconds in extra.items()},
        "slowdown_percent": 100 * sum(SHARES[kind] * extra[kind] for kind in extra) / plain,
        "by_the_clock_percent": 100
        * sum(SHARES[kind] * waits[kind] for kind in waits)
        / plain_clock,
    }


def main() -> None:
    """Measure, print a table and one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="default: %(default)s")
    rounds = parser.parse_args().rounds
    results = {}
    for policy in ("default", "tensors"):
        results[policy] = measure(policy, rounds)
        words = "  ".join(f"{name} {value:.2f}" for name, value in results[policy].items())
        print(f"{policy:<8} n={rounds}  {words}", flush=True)
    print_results(["torch", "smdebug", "protobuf", "numpy"], rounds=rounds, results=results)


if __name__ == "__main__":
    main()
