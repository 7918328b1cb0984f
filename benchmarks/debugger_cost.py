"""What recording adds to ResNet-18's steps: the observer's share of their time.

    OMP_NUM_THREADS=1 python -m benchmarks.debugger_cost

Images are noise of 64 x 64 pixels, batches have 32: a step is short, and recording weighs more
than at 224 pixels. `default` is the policy of a run of 2,000 steps; `tensors` has losses every 10
steps and weights and gradients reduced every 100. Steps that record tensors, a loss and nothing
take turns, and their medians are added up by how often they come. On a machine that others use,
two runs differ by more than what is measured; and so each call of the observer is timed within
the real step, and the processor time of all other threads, which write files and sample the
machine, is added. By the clock only the calls count: files are written beside the training.
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

from benchmarks.conditions import conditions
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

# A record of all tensors comes in one step of so many, of a loss in one of the others.
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
    """Sums up how long the training waits for it."""

    def __init__(self, settings: Settings) -> None:
        """Begin with nothing."""
        super().__init__(settings)
        self.seconds = Times(0.0, 0.0)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the beginning and the end, and not what lies within."""
        context = super().phase(name)
        self.timed(context.__enter__)
        try:
            yield
        finally:
            self.timed(context.__exit__, None, None, None)

    def timed(self, call: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
        """Make a call and add its seconds."""
        before = Times.now()
        result = call(*arguments, **named)
        self.seconds += Times.now() - before
        return result


def _time_calls(observer: TimedObserver) -> None:
    for name in ("begin_step", "batch", "gradients", "updated", "loss"):
        setattr(observer, name, partial(observer.timed, getattr(observer, name)))


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of this thread's processor time, and by the clock."""

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
    """Return what an observer adds to steps of each kind, and in all."""
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
                # The first turn warms up.
                if turn >= 0:
                    taken[kind].append(found)
        observer.close()
    return _slowdown(taken)


def _time(
    step: TrainingStep, model: Classifier, number: int, observer: TimedObserver
) -> tuple[Times, Times, float]:
    """Return what a step took, the observer's part of it, and other threads' processor time."""
    observer.seconds = Times(0.0, 0.0)
    process, start = time.process_time(), Times.now()
    observer.begin_step(number, 0)
    with observer.phase(STEP):
        step(model, number, np.arange(BATCH), 0.0, observer)
    # It finishes the files of the one before.
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
    facts = conditions(["torch", "smdebug", "protobuf", "numpy"])
    print(json.dumps({"rounds": rounds, "results": results, "conditions": facts}))


if __name__ == "__main__":
    main()
