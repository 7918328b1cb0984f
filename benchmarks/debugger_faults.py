"""Issues that the rules find in runs with planted faults and in healthy runs.

    OMP_NUM_THREADS=1 python -m benchmarks.debugger_faults --data FOLDER ...

Each folder contains labeled images. The job's own loop trains on several hundred of them at 32
pixels with the default policy. A fault is found if one of its rules finds an issue; any issue in a
healthy run is a false alarm. The first advice is the first one of the report. Metrics of an idle
GPU are written as the profiler writes them, for the run with tiny batches.
"""

import argparse
import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.conditions import print_results
from container.classifier import labeled_images
from container.classifier.errors import UserError
from container.classifier.preprocessing import Preprocessing
from container.debugger import sources
from container.debugger.profiler import rules as profiler_rules
from container.debugger.profiler.system_metrics import INTERVAL_SECONDS, SystemSampler
from container.debugger.recording.debug_session import PROFILER, Observer, Settings
from container.debugger.report import advice
from container.debugger.rules import selection
from container.debugger.rules.rule import ISSUES
from container.networks.network import Network, build
from container.training.data import images, sampling
from container.training.data.images import ImageSet
from container.training.device import Arithmetic
from container.training.fitting.checkpoint import Checkpoints
from container.training.fitting.cluster import Cluster
from container.training.fitting.loop import Trainer
from container.training.fitting.task import Task
from container.training.hyperparameters import Hyperparameters
from container.training.sagemaker.stop import StopRequest

SIDE, TRAINING, VALIDATION = 32, 512, 256

# Networks, and the epochs in which they learn these images from scratch. MobileNetV3 does not:
# its batch normalization gathers statistics so slowly that its validation loss rises, and an alarm
# would be right.
HEALTHY_NETWORKS = {
    "small": 10,
    "resnet18": 10,
    "mobilenet_v2": 20,
    "shufflenet_v2_x0_5": 20,
    "regnet_y_400mf": 20,
}

WAIT_SECONDS, RATIO, IDLE_SAMPLES = 0.2, 30, 1200

Change = Callable[[Trainer], None]
Rules = tuple[str, ...]


def leave(_trainer: Trainer) -> None:
    """Change nothing."""


def kill_units(trainer: Trainer) -> None:
    """Start with all ReLUs far below zero."""
    for layer in trainer.task.network.module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.constant_(layer.bias, -100)


def remove_normalization(trainer: Trainer) -> None:
    """Remove the normalization: the network receives pixels from 0 to 255."""
    trainer.learner.classifier.mean.zero_()
    trainer.learner.classifier.std.fill_(1)


def deep_sigmoid(classes: int) -> nn.Module:
    """Return 14 layers with sigmoids between them."""
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 32), nn.Sigmoid()]
    for _ in range(14):
        layers += [nn.Linear(32, 32), nn.Sigmoid()]
    return nn.Sequential(*layers, nn.Linear(32, classes))


@dataclass(frozen=True, kw_only=True)
class Case:
    """A run and its expected rules, one of which must find an issue; a healthy run has none."""

    rules: Rules = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    change: Change = leave
    shuffled_share: float = 0.0
    is_uneven: bool = False
    waits: bool = False
    has_idle_gpu: bool = False


@dataclass(frozen=True, slots=True)
class Assessment:
    """Result of a run."""

    rules: tuple[str, ...]
    """Those that found an issue."""

    first: str
    """The rule of the first advice."""

    accuracy: float
    """Of the best epoch's weights on the validation images."""


FAULTS: Mapping[str, Case] = {
    "dead initialization": Case(rules=("DeadRelu",), change=kill_units),
    "learning rate 0": Case(
        rules=("UnchangedTensor", "WeightUpdateRatio", "LossNotDecreasing"),
        settings={"learning_rate": 1e-9},
    ),
    "learning rate far too high": Case(
        rules=("LossNotDecreasing", "ExplodingTensor"),
        settings={"learning_rate": 50.0, "optimizer": "sgd"},
    ),
    "learning rate far too low": Case(
        rules=("LossNotDecreasing",), settings={"learning_rate": 1e-6, "optimizer": "sgd"}
    ),
    "deep sigmoid network": Case(
        rules=("VanishingGradient",),
        settings={"network": "deep sigmoid", "learning_rate": 0.01, "optimizer": "sgd"},
    ),
    "label noise until overfit": Case(
        rules=("Overfit",), settings={"epochs": 40, "augment": False}, shuffled_share=0.5
    ),
    "run far too long": Case(rules=("Overtraining",), settings={"epochs": 60}),
    "30:1 classes": Case(
        rules=("ClassImbalance",), settings={"class_balance": "none"}, is_uneven=True
    ),
    "wrong normalization": Case(rules=("CheckInputImages",), change=remove_normalization),
    "stalled loader": Case(rules=("Dataloader",), settings={"epochs": 3}, waits=True),
    "tiny batch on an idle device": Case(
        rules=("BatchSize",), settings={"epochs": 3, "batch_size": 4}, has_idle_gpu=True
    ),
}


def healthy() -> Iterator[tuple[str, Case]]:
    """Yield healthy runs of several networks."""
    for name, epochs in HEALTHY_NETWORKS.items():
        yield f"healthy {name}", Case(settings={"network": name, "epochs": epochs})


def load(folder: Path) -> tuple[ImageSet, ImageSet]:
    """Decode some images of a folder, the same number of each class."""
    files = labeled_images.labeled_files(folder)
    names = labeled_images.class_names_of(files)
    each = (TRAINING + VALIDATION) // len(names)
    random = np.random.default_rng(0)
    chosen = []
    for name in names:
        own = [file for file in files if file.class_name == name]
        chosen += [own[i] for i in random.permutation(len(own))[:each]]
    training, validation = sampling.split_validation(
        chosen, VALIDATION / (TRAINING + VALIDATION), 0
    )
    decode = partial(images.decode, class_names=names, settings=Preprocessing(image_size=SIDE))
    return decode(training, stop=StopRequest()), decode(validation, stop=StopRequest())


def run(case: Case, training: ImageSet, validation: ImageSet, directory: Path) -> Assessment:
    """Train; return the results of the rules."""
    training = _with_faults(training, case)
    classes = int(validation.labels.max()) + 1
    wanted: dict[str, object] = {
        "epochs": 12,
        "batch_size": 32,
        "image_size": SIDE,
        **case.settings,
    }
    name = str(wanted.pop("network", "small"))
    torch.manual_seed(0)
    network = build("small" if name == "deep sigmoid" else name, classes, SIDE)
    if name == "deep sigmoid":
        network = Network(name, deep_sigmoid(classes), heads=("31",))
    hyperparameters = Hyperparameters(
        network="small",
        precision="float32",
        **wanted,  # type: ignore[arg-type]
    )
    observer = Observer(
        Settings(
            configuration_path=directory / "none",
            profiler_configuration_path=directory / "none",
            output_dir=directory,
            is_required=True,
        )
    )
    trainer = Trainer(
        Task(
            hyperparameters=hyperparameters,
            preprocessing=Preprocessing(image_size=SIDE),
            class_names=tuple(map(str, range(classes))),
            network=network,
            weights_source=None,
            training=training,
            validation=validation,
        ),
        arithmetic=Arithmetic.choose("float32", "small"),
        cluster=Cluster(0, 1),
        observer=observer,
    )
    case.change(trainer)
    with contextlib.suppress(UserError):
        # A loss that is no number ends the job; what was recorded is judged all the same.
        trainer.train(StopRequest(), Checkpoints(directory / "checkpoints", "0" * 12, 1e6))
    observer.close()
    if case.has_idle_gpu:
        _plant_idle_gpu(directory / PROFILER)
    verdicts = selection.evaluate_all(selection.select(None), sources.read(directory))
    profile = sources.read_profile(directory)
    if profile is not None:
        verdicts += profiler_rules.evaluate_all(profile)
    found = sorted(verdict.rule for verdict in verdicts if verdict.status == ISSUES)
    first = next((str(row["rule"]) for row in advice(verdicts)), "")
    best = trainer.progress.best
    return Assessment(tuple(found), first, best.evaluation.accuracy if best else 0.0)


class SlowPixels(np.ndarray):
    """Pixels whose batches are delayed, as by a slow disk."""

    def __getitem__(self, key: Any) -> Any:  # noqa: ANN401
        """Return the pixels after a delay."""
        time.sleep(WAIT_SECONDS)
        return np.asarray(super().__getitem__(key))


def _with_faults(training: ImageSet, case: Case) -> ImageSet:
    random = np.random.default_rng(1)
    labels, pixels, paths = training.labels.copy(), training.pixels, training.paths
    if case.shuffled_share:
        some = random.permutation(len(labels))[: int(case.shuffled_share * len(labels))]
        labels[some] = random.permutation(labels[some])
    if case.is_uneven:
        common, rare = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
        kept = np.sort(
            np.concatenate([common, rare[: len(common) // RATIO], np.flatnonzero(labels > 1)])
        )
        labels, pixels = labels[kept], np.asarray(pixels[kept])
        paths = tuple(paths[i] for i in kept.tolist())
    if case.waits:
        pixels = np.asarray(pixels).view(SlowPixels)
    return replace(training, labels=labels, pixels=pixels, paths=paths)


def _plant_idle_gpu(directory: Path) -> None:
    """Write ten minutes of a GPU that small batches keep at 12 %, and 4 % of its memory."""
    shutil.rmtree(directory / "system", ignore_errors=True)
    sampler = SystemSampler(directory, "algo-1", INTERVAL_SECONDS)
    random, start = np.random.default_rng(0), time.time()
    for number in range(IDLE_SAMPLES):
        processors, gpu = random.normal((15, 12), 3).clip(0).tolist()
        sampler.write(
            start + INTERVAL_SECONDS * number,
            [
                ("cpu", "cpu0", "CPUUtilization", processors),
                ("cpu", "cpu0", "I/OWaitPercentage", 0.0),
                ("gpu", "gpu0", "GPUUtilization", gpu),
                ("gpu", "gpu0", "GPUMemoryUtilization", 4.0),
            ],
        )


def main() -> None:
    """Run all, print a table and one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of classes")
    parser.add_argument("--only", nargs="*", help="cases by the beginnings of their names")
    arguments = parser.parse_args()
    results = []
    for number, folder in enumerate(arguments.data):
        training, validation = load(folder)
        cases = [*(FAULTS.items() if number == 0 else ()), *healthy()]
        for name, case in cases:
            if arguments.only and not name.startswith(tuple(arguments.only)):
                continue
            with tempfile.TemporaryDirectory() as directory:
                result = run(case, training, validation, Path(directory))
            found = set(result.rules)
            is_right = bool(found & set(case.rules)) if case.rules else not found
            row = {"case": name, "data": folder.name, **asdict(result), "right": is_right}
            results.append(row)
            words = (
                f"{name:<29} {result.accuracy:6.1%}  {result.first:<18} {', '.join(result.rules)}"
            )
            print(f"{'ok' if is_right else 'WRONG':<6} {words}", flush=True)
    _say(results)
    print_results(["torch", "smdebug"], results=results)


def _say(results: Sequence[Mapping[str, object]]) -> None:
    well = [result for result in results if str(result["case"]).startswith("healthy")]
    faults = [result for result in results if result not in well]
    print(f"faults found: {sum(bool(r['right']) for r in faults)} of {len(faults)}")
    print(f"healthy runs without an alarm: {sum(bool(r['right']) for r in well)} of {len(well)}")


if __name__ == "__main__":
    main()
