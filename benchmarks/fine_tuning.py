"""What each ingredient of fine-tuning is worth: named variants on thinned data sets.

    python -m benchmarks.fine_tuning --data ../shared/data --results fine_tuning.jsonl

A seed draws the training and validation images of a data set, the same number of each class, and
orders the batches. Each variant of a seed starts from the same images, weights and head, so the
differences between variants are paired. All take the same number of epochs, or with `--seconds` the
same time of a core after the frozen stage. The seconds are those of the processor, without those of
the frozen stage: other programs on the machine change them little and the accuracies of runs with
`--epochs` not at all.

A result is a line of `--results`. A run that is started again skips what the file holds.
"""

import argparse
import contextlib
import dataclasses
import itertools
import json
import logging
import math
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.conditions import conditions
from benchmarks.job import unpacked
from benchmarks.results import continued, drawn, points
from container.classifier import labeled_images
from container.classifier.preprocessing import Preprocessing
from container.debugger.reading.records import LearningRate
from container.debugger.recording.debug_session import Observer
from container.networks.network import build
from container.training.data import images
from container.training.device import Arithmetic
from container.training.fitting import pretrained
from container.training.fitting.checkpoint import Checkpoints
from container.training.fitting.cluster import Cluster
from container.training.fitting.loop import Trainer
from container.training.fitting.task import Task
from container.training.fitting.time_budget import TimeBudget
from container.training.hyperparameters import Hyperparameters
from container.training.sagemaker.stop import StopRequest

NETWORK, WEIGHTS = "squeezenet1_0", "weights/squeezenet1_0-deepcompression.pth"

# Folders of the training and the validation images in each tar file.
DATA = {
    "flowers": ("flowers/train", "flowers/val"),
    "digits": ("digits/train", "digits/val"),
    "ants-bees": ("ants-bees/train", "ants-bees/val"),
    "hurricane": ("hurricane/train_another", "hurricane/validation_another"),
}


@dataclass(frozen=True, slots=True)
class Variant:
    """Changes of the reference: hyperparameters, and constants by module and name."""

    hyperparameters: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, float] = field(default_factory=dict)


# A first try, found by hand.
BY_HAND = {
    "fine_tuning": "full",
    "learning_rate": "0.001",
    "max_zoom": "0.4",
    "max_shift": "0.15",
    "label_smoothing": "0.1",
    "horizontal_flip": "true",
    "batch_size": "32",
}
FACTOR = "container.training.fitting.unfreezing.FIRST_LAYER_FACTOR"
AVERAGED = "container.training.recipe.AVERAGED_RUNS"
VARIANTS = {
    "before": Variant(
        {
            "fine_tuning": "staged",
            "learning_rate": "0.0002",
            "batch_size": "64",
            "max_zoom": "0.1",
            "max_shift": "0.08",
            "label_smoothing": "0",
        }
    ),
    "by hand": Variant(BY_HAND),
    "by hand, rate 0.0005": Variant(BY_HAND | {"learning_rate": "0.0005"}),
    "by hand, rate 0.002": Variant(BY_HAND | {"learning_rate": "0.002"}),
    "by hand, staged": Variant(BY_HAND | {"fine_tuning": "staged"}),
    "by hand, batch 64": Variant(BY_HAND | {"batch_size": "64"}),
    "by hand, zoom 0.1, shift 0.08": Variant(BY_HAND | {"max_zoom": "0.1", "max_shift": "0.08"}),
    "by hand, no average": Variant(BY_HAND | {"ema_decay": "0"}),
    "by hand, equal rates": Variant(BY_HAND, {FACTOR: 1.0}),
    "by hand, no smoothing": Variant(BY_HAND | {"label_smoothing": "0"}),
    "by hand, no flips": Variant(BY_HAND | {"horizontal_flip": "false"}),
    "default": Variant(),
    "rate 0.001": Variant({"learning_rate": "0.001"}),
    "batch 64": Variant({"batch_size": "64"}),
    "staged": Variant({"fine_tuning": "staged"}),
    "no smoothing": Variant({"label_smoothing": "0"}),
    "first layer 0.03": Variant({}, {FACTOR: 0.03}),
    "no average": Variant({"ema_decay": "0"}),
    "average of a fifth": Variant({}, {AVERAGED: 5}),
    "cutmix": Variant({"cutmix": "1"}),
    "mixup 0.2": Variant({"mixup": "0.2"}),
    "muon 0.002": Variant({"optimizer": "muon", "learning_rate": "0.002"}),
    "decay 0.05": Variant({"weight_decay": "0.05"}),
    "zoom 0.4, shift 0.15": Variant({"max_zoom": "0.4", "max_shift": "0.15"}),
    "flips": Variant({"horizontal_flip": "true"}),
    "cutout 0.3": Variant({"cutout": "0.3"}),
    "no augmentation": Variant({"augment": "false"}),
    "half_size_steps 0.5": Variant({"half_size_steps": "0.5"}),
}


@dataclass(frozen=True, slots=True)
class Run:
    """A variant of a seed on a data set."""

    data: str
    variant: str
    seed: int
    epochs: int
    training: int
    validation: int
    image_size: int
    seconds: float | None = None
    """Processor time for steps and evaluations, which replaces the epochs."""

    from_scratch: str = ""
    """A network that starts from random weights, instead of the pretrained one."""


class ProcessorTime(TimeBudget):
    """A budget of processor time, which begins after the frozen stage."""

    def __init__(self, seconds: float) -> None:
        """Allow so much time for steps and evaluations."""
        super().__init__(time.process_time)
        self._seconds, self._has_begun = seconds, False
        self.limit(sys.maxsize, lambda _: 0.0)

    def advance(self, *, is_required: bool) -> None:
        """Begin with the first step."""
        if not self._has_begun:
            self._has_begun = True
            self.limit((self.used_seconds + self._seconds) / 60, lambda last: last or 0.0)
        super().advance(is_required=is_required)


class Recorder(Observer):
    """Keeps the accuracy of every evaluation, the first of which is the frozen stage's."""

    def __init__(self) -> None:
        """Start without evaluations."""
        super().__init__()
        self.accuracies: list[float] = []
        self.losses: list[float] = []
        self.processor_seconds: list[float] = []

    def evaluation(
        self,
        step: int,
        epoch: int,
        loss: float,
        confusion: npt.NDArray[np.int64],
        train_loss: float | None = None,
        *,
        learning_rate: LearningRate = "low",
    ) -> None:
        """Record an evaluation."""
        super().evaluation(step, epoch, loss, confusion, train_loss, learning_rate=learning_rate)
        self.accuracies.append(round(float(confusion.trace() / confusion.sum()), 4))
        self.losses.append(round(loss, 4))
        self.processor_seconds.append(time.process_time())


def main() -> None:
    """Run what is missing in the results; print a table and one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the tar files, weights")
    parser.add_argument("--results", type=Path, required=True, help="JSON Lines, continued")
    parser.add_argument("--sets", nargs="*", choices=DATA, default=["flowers", "digits"])
    parser.add_argument("--variants", nargs="*", choices=VARIANTS, default=[*VARIANTS])
    parser.add_argument("--seeds", type=int, default=3, help="from 0; default: 3")
    parser.add_argument("--epochs", type=int, default=3, help="default: 3")
    parser.add_argument("--seconds", type=float, help="of a core, instead of epochs")
    parser.add_argument("--images", type=int, nargs=2, default=(600, 600), metavar=("T", "V"))
    parser.add_argument("--image-size", type=int, default=128, help="default: 128 pixels")
    parser.add_argument("--from-scratch", default="", metavar="NETWORK", help="without weights")
    parser.add_argument("--reference", choices=VARIANTS, default="default")
    parser.add_argument("--table", action="store_true", help="print the table only")
    arguments = parser.parse_args()
    training, validation = arguments.images
    sizes = (training, validation, arguments.image_size)
    logging.basicConfig(level=logging.WARNING)
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        os.environ.setdefault("SAGEMAKER_CLASSIFIER_CACHE_DIR", str(scratch / "cache"))
        runs = (
            Run(
                data,
                name,
                seed,
                arguments.epochs,
                *sizes,
                arguments.seconds,
                arguments.from_scratch,
            )
            for seed, name, data in itertools.product(
                range(arguments.seeds), arguments.variants, arguments.sets
            )
        )
        results = continued(
            arguments.results,
            () if arguments.table else runs,
            lambda run: _result(run, arguments.data, scratch),
        )
    _print_table(results, arguments.reference)
    print(json.dumps({"results": results, "conditions": conditions(["torch", "torchvision"])}))


def _result(run: Run, data: Path, scratch: Path) -> dict[str, object]:
    """Train once."""
    variant, network = VARIANTS[run.variant], run.from_scratch or NETWORK
    hyperparameters = Hyperparameters.from_strings(
        {
            "network": network,
            "pretrained": str(not run.from_scratch).lower(),
            "seed": run.seed,
            "epochs": run.epochs,
            "image_size": run.image_size,
            # Decides the schedule; the budget is that of the trainer below.
            **({} if run.seconds is None else {"max_minutes": 1_000}),
            **variant.hyperparameters,
        }
    )
    stop, recorder = StopRequest(), Recorder()
    with contextlib.ExitStack() as stack:
        for name, value in variant.constants.items():
            stack.enter_context(mock.patch(name, value))
        trainer = Trainer(
            _task(run, data, scratch, hyperparameters),
            arithmetic=Arithmetic.choose(hyperparameters.precision, network),
            cluster=Cluster(rank=0, world_size=1),
            observer=recorder,
            budget=None if run.seconds is None else ProcessorTime(run.seconds),
        )
        # Without checkpoints but the last one.
        trainer.train(stop, Checkpoints(scratch / "checkpoints", "0" * 64, math.inf))
    shutil.rmtree(scratch / "checkpoints", ignore_errors=True)
    return {
        "accuracies": recorder.accuracies,
        "losses": recorder.losses,
        "processor_seconds": recorder.processor_seconds[-1] - recorder.processor_seconds[0],
    }


def _task(run: Run, data: Path, scratch: Path, hyperparameters: Hyperparameters) -> Task:
    """Draw the images of a seed, and load the weights."""
    folder = unpacked(data, run.data, scratch)
    preprocessing = Preprocessing(image_size=run.image_size)
    parts = [
        drawn(labeled_images.labeled_files(folder / path), count, run.seed)
        for path, count in zip(DATA[run.data], (run.training, run.validation), strict=True)
    ]
    class_names = tuple(sorted({file.class_name for file in parts[0]}))
    training, validation = (
        images.decode(files, class_names, preprocessing, StopRequest()) for files in parts
    )
    torch.manual_seed(run.seed)
    network = build(hyperparameters.network, len(class_names), run.image_size)
    source = None
    if not run.from_scratch:
        weights = scratch / "weights"
        weights.mkdir(exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (weights / Path(WEIGHTS).name).symlink_to((data / WEIGHTS).resolve())
        source = pretrained.load_channel(network, weights)
    return Task(
        hyperparameters=hyperparameters,
        preprocessing=preprocessing,
        class_names=class_names,
        network=network,
        weights_source=source,
        training=training,
        validation=validation,
    )


def _print_table(results: Sequence[Mapping[str, Any]], reference: str) -> None:
    """Print the last epoch's accuracy and its paired difference to that of the reference."""
    by_run = {Run(**result["run"]): result for result in results}
    groups: dict[Run, list[tuple[float, ...]]] = defaultdict(list)
    for run, result in by_run.items():
        other = by_run.get(dataclasses.replace(run, variant=reference))
        frozen, last = result["accuracies"][0], result["accuracies"][-1]
        groups[dataclasses.replace(run, seed=0)].append(
            (
                last,
                last - other["accuracies"][-1] if other else math.nan,
                last - frozen,
                max(result["accuracies"]),
                result["processor_seconds"],
            )
        )
    titles = ("last epoch", f"- {reference}", "- frozen", "kept", "processor s")
    print(f"{'data, images, epochs, pixels: variant':<60} n " + "".join(f"{t:>15}" for t in titles))
    for run, rows in groups.items():
        last, difference, gain, kept, seconds = zip(*rows, strict=True)
        length = run.epochs if run.seconds is None else f"{run.seconds:g} s"
        where = f"{run.data}, {run.training}, {length}, {run.image_size}: {run.variant}"
        where += f", {run.from_scratch} from scratch" * bool(run.from_scratch)
        cells = (
            f"{100 * statistics.mean(last):.1f}",
            points([value for value in difference if not math.isnan(value)]),
            points(gain),
            f"{100 * statistics.mean(kept):.1f}",
            f"{statistics.mean(seconds):.0f}",
        )
        print(f"{where:<60} {len(rows)} " + "".join(f"{cell:>15}" for cell in cells))


if __name__ == "__main__":
    main()
