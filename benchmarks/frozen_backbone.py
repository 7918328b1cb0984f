"""A frozen backbone's new head: the usual recipe, the frozen stage, and the whole program.

    python -m benchmarks.frozen_backbone --data ../shared/data

`usual` is the recipe that people come from, float32: SqueezeNet 1.0 with the weights file, frozen,
a new convolution for its classes, Adam at 0.001 for five epochs of 32 images a batch, a
DataLoader with two workers over an ImageFolder, random crops and flips, an evaluation after each
epoch; its accuracy is that of its best epoch. `frozen stage` decodes the images, computes
features and trains heads on them, through the project's own functions; its accuracy is that of the
network with the chosen head, in float32. `program` is the training program as a process, with the
hyperparameters that are given: from its first line in the log to the end of its last epoch.

All see the same images, weights and two cores. They take turns, seed by seed, so that what else
the machine does meets them alike. Seconds are those from an image's file to the last evaluation.
"""

import argparse
import dataclasses
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
import torchvision
from torch import nn
from torchvision import transforms

from benchmarks.conditions import print_results
from benchmarks.job import Case, make_tree, unpacked
from benchmarks.results import T_95
from benchmarks.rivals import torch_loop
from benchmarks.training import train
from container.classifier import labeled_images
from container.classifier.preprocessing import Preprocessing
from container.networks.network import Classifier, build
from container.training import recipe
from container.training.data import images
from container.training.device import Arithmetic
from container.training.evaluation.evaluation import evaluate
from container.training.fitting import pretrained as weights
from container.training.head import features, frozen_stage
from container.training.hyperparameters import Hyperparameters
from container.training.sagemaker.stop import StopRequest

THREADS = 2

USUAL_EPOCHS = 5

CASE = Case(
    training="ants-bees/train",
    validation="ants-bees/val",
    hyperparameters={"network": "squeezenet1_0", "horizontal_flip": "true"},
    weights="weights/squeezenet1_0-deepcompression.pth",
)

Measured = dict[str, float]


def main() -> None:
    """Let the recipes take turns, print a table and one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of ants-bees.tar, weights")
    parser.add_argument("--seeds", type=int, default=5, choices=T_95, help="from 0; default: 5")
    parser.add_argument("--program", nargs="*", metavar="NAME=VALUE", help="run it as well, so")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    torch.set_num_threads(THREADS)
    os.environ["OMP_NUM_THREADS"] = str(THREADS)
    results: dict[str, list[Measured]] = {}
    with tempfile.TemporaryDirectory() as directory:
        images_folder = unpacked(arguments.data, "ants-bees", Path(directory))
        weights_file = (arguments.data / (CASE.weights or "")).resolve()
        for seed in range(arguments.seeds):
            runs: dict[str, Callable[[], Measured]] = {
                "usual": partial(train_usual, images_folder, weights_file, seed),
                "frozen stage": partial(train_frozen_stage, images_folder, weights_file, seed),
            }
            if arguments.program is not None:
                case = _case(arguments.program)
                runs["program"] = partial(train_program, case, images_folder, arguments.data, seed)
            for name, run in runs.items():
                measured = _with_empty_cache(run)
                results.setdefault(name, []).append(measured)
                print(f"{name:<12} seed {seed}  {_in_words(measured)}", flush=True)
    _compare(results)
    print_results(["torch", "torchvision"], results=results)


def train_usual(directory: Path, weights_file: Path, seed: int) -> Measured:
    """Train the head of a frozen SqueezeNet as people do."""
    torch.manual_seed(seed)
    start = time.monotonic()
    net = torchvision.models.squeezenet1_0(weights=None)
    net.load_state_dict(torch.load(weights_file, weights_only=True))
    net.requires_grad_(requires_grad=False)
    net.classifier[1] = nn.Conv2d(512, 2, kernel_size=1)
    random = [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip()]
    fixed = [transforms.Resize(256), transforms.CenterCrop(224)]
    training = torch_loop.loader(directory / CASE.training, random, batch_size=32, shuffle=True)
    validation = torch_loop.loader(directory / CASE.validation, fixed, batch_size=32, shuffle=False)
    optimizer = torch.optim.Adam(net.classifier.parameters(), lr=1e-3)
    accuracies = []
    for _ in range(USUAL_EPOCHS):
        torch_loop.train_epoch(net, training, optimizer)
        accuracies.append(torch_loop.accuracy(net, validation))
    return {
        "val_accuracy": max(accuracies),
        "last_accuracy": accuracies[-1],
        "seconds": time.monotonic() - start,
    }


def train_frozen_stage(directory: Path, weights_file: Path, seed: int) -> Measured:
    """Train the head of a frozen SqueezeNet on features that are computed once."""
    hyperparameters = Hyperparameters.from_strings({**CASE.hyperparameters, "seed": seed})
    arithmetic, stop = (
        Arithmetic.choose(hyperparameters.precision, hyperparameters.network),
        StopRequest(),
    )
    start = time.monotonic()
    net = build(hyperparameters.network, 2)
    with tempfile.TemporaryDirectory() as weights_channel:
        Path(weights_channel, weights_file.name).symlink_to(weights_file)
        weights.load_channel(net, Path(weights_channel))
    decoded = []
    for folder in (CASE.training, CASE.validation):
        files = labeled_images.labeled_files(directory / folder)
        settings = Preprocessing(image_size=recipe.image_size(hyperparameters))
        decoded.append(images.decode(files, labeled_images.class_names_of(files), settings, stop))
    now_decoded = time.monotonic()
    training, validation = (features.compute(net, each, arithmetic, stop=stop) for each in decoded)
    now_computed = time.monotonic()
    _, on_features = frozen_stage.train(
        net,
        training,
        validation,
        hyperparameters,
        objective="val_accuracy",
        class_weights=None,
        device=arithmetic.device,
        stop=stop,
    )
    end = time.monotonic()
    # Of the network as it will be served, and no part of the stage.
    exact = Arithmetic(arithmetic.device, torch.float32)
    evaluation = evaluate(Classifier(net.module), decoded[1], exact, 2, stop)
    return {
        "val_accuracy": evaluation.accuracy,
        "accuracy_on_features": on_features.accuracy,
        "decoding_seconds": now_decoded - start,
        "features_seconds": now_computed - now_decoded,
        "heads_seconds": end - now_computed,
        "seconds": end - start,
    }


def train_program(case: Case, directory: Path, data: Path, seed: int) -> Measured:
    """Run the training program."""
    with tempfile.TemporaryDirectory() as scratch:
        base_dir = Path(scratch, "ml")
        make_tree(base_dir, case, directory, data, seed)
        measured = train(base_dir)
    return {
        "val_accuracy": measured["val_accuracy"],
        "decoding_seconds": measured["decoding_seconds"],
        "seconds": measured["decoding_seconds"] + measured["seconds"],
    }


def _case(program: Sequence[str]) -> Case:
    given = dict(pair.split("=", 1) for pair in program)
    return dataclasses.replace(CASE, hyperparameters={**CASE.hyperparameters, **given})


def _with_empty_cache(run: Callable[[], Measured]) -> Measured:
    """Run where no earlier run has left decoded images."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory() as scratch:
        tempfile.tempdir = os.environ["TMPDIR"] = scratch
        try:
            return run()
        finally:
            tempfile.tempdir = before
            del os.environ["TMPDIR"]


def _compare(results: Mapping[str, Sequence[Measured]]) -> None:
    """Print means, and what the others are to the usual recipe, with 95 % intervals."""
    usual = results["usual"]
    for name, own in results.items():
        accuracy = _interval([each["val_accuracy"] for each in own])
        seconds = statistics.mean(each["seconds"] for each in own)
        print(f"{name:<12} mean    val_accuracy {accuracy}  seconds {seconds:.1f}")
        if own is usual:
            continue
        pairs = list(zip(own, usual, strict=True))
        gain = _interval([ours["val_accuracy"] - theirs["val_accuracy"] for ours, theirs in pairs])
        ratio = _interval([theirs["seconds"] / ours["seconds"] for ours, theirs in pairs])
        print(f"{name:<12} against usual: val_accuracy {gain}  seconds of usual / own {ratio}")


def _interval(values: Sequence[float]) -> str:
    """Return the mean with its 95 % interval, by Student's t distribution."""
    margin = T_95[len(values)] * statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.mean(values):.4f} +- {margin:.4f}"


def _in_words(measured: Measured) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in measured.items())


if __name__ == "__main__":
    main()
