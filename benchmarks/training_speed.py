"""Images per second of fine-tuning ResNet-18 at 224 pixels, against torchvision's reference loop.

    python -m benchmarks.training_speed --data ../shared/data

On the same cores: the loop of torchvision's reference script with its defaults (float32, Pillow in
a DataLoader with two workers, a loss read back every step), and this project's training step on
decoded images. Both have the same initial weights, images, order and learning rate. The losses must
agree without augmentation; then each runs with its own augmentation. Rounds alternate, and medians
are printed.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import models, transforms

from benchmarks.conditions import print_results
from benchmarks.job import unpacked
from container.classifier import labeled_images
from container.classifier.preprocessing import Preprocessing
from container.networks import network
from container.training.data import images
from container.training.device import Arithmetic
from container.training.fitting.cluster import Cluster
from container.training.fitting.learner import Learner
from container.training.fitting.task import Task
from container.training.hyperparameters import Hyperparameters
from container.training.recipe import Recipe
from container.training.sagemaker.stop import StopRequest

SIZE, BATCH_SIZE, LEARNING_RATE = 224, 32, 0.02
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]

Losses: TypeAlias = list[float]
# By mode and side.
Speeds: TypeAlias = dict[str, dict[str, list[float]]]


class ImageFiles(Dataset[tuple[torch.Tensor, int]]):
    """Images decoded by Pillow on every access."""

    def __init__(
        self, paths: Sequence[Path], labels: Sequence[int], transform: Callable[..., torch.Tensor]
    ) -> None:
        """Hold the files in the order in which they are learned."""
        self.paths, self.labels, self.transform = paths, labels, transform

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """Decode one."""
        with Image.open(self.paths[index]) as image:
            return self.transform(image.convert("RGB")), self.labels[index]


def reference(files: images.ImageSet, order: npt.NDArray[np.int64], *, augment: bool) -> Losses:
    """Train as torchvision's reference script does; return each step's loss."""
    changes = (
        [transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip()]
        if augment
        else [transforms.Resize(SIZE), transforms.CenterCrop(SIZE)]
    )
    to_tensor = [
        transforms.PILToTensor(),
        transforms.ConvertImageDtype(torch.float),
        transforms.Normalize(MEAN, STD),
    ]
    transform = transforms.Compose([*changes, *to_tensor])
    dataset = ImageFiles(
        [files.paths[i] for i in order], [int(files.labels[i]) for i in order], transform
    )
    torch.manual_seed(0)
    model = models.resnet18(num_classes=int(files.labels.max()) + 1)
    criterion = nn.CrossEntropyLoss()
    # Its `--opt sgd_nesterov`: the momentum that this project's SGD has.
    optimizer = torch.optim.SGD(
        model.parameters(), lr=LEARNING_RATE, momentum=0.9, weight_decay=1e-4, nesterov=True
    )
    losses = []
    model.train()
    for image, target in DataLoader(dataset, BATCH_SIZE, num_workers=2, pin_memory=False):
        output = model(image)
        loss = criterion(output, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def ours(files: images.ImageSet, order: npt.NDArray[np.int64], *, augment: bool) -> Losses:
    """Train with this project's step; return each step's loss."""
    torch.manual_seed(0)
    num_classes = int(files.labels.max()) + 1
    # The same head as there, for the same start.
    module = models.resnet18(num_classes=num_classes)
    hyperparameters = Hyperparameters(
        network="resnet18",
        pretrained=False,
        batch_size=BATCH_SIZE,
        optimizer="sgd",
        weight_decay=1e-4,
        augment=augment,
        horizontal_flip=augment,
    )
    task = Task(
        hyperparameters=hyperparameters,
        preprocessing=Preprocessing(image_size=SIZE),
        class_names=tuple(map(str, range(num_classes))),
        network=network.Network("resnet18", module, heads=("fc",)),
        weights_source=None,
        training=files,
        validation=files,
    )
    recipe = Recipe.of(hyperparameters, files.labels, pretrained=False)
    learner = Learner(task, recipe, Arithmetic.choose("auto", "resnet18"), Cluster(0, 1))
    losses = []
    for number, batch in enumerate(np.split(order, len(order) // BATCH_SIZE)):
        loss, _, count = learner.step(learner.classifier, number, batch, LEARNING_RATE).tolist()
        learner.average.update(learner.classifier, number)
        losses.append(loss / count)
    return losses


def main() -> None:
    """Measure, print a table and one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of dogs.tar")
    parser.add_argument("--steps", type=int, default=16, help="steps a round")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        dogs = unpacked(arguments.data, "dogs", Path(scratch)) / "dogs"
        found = labeled_images.labeled_files(dogs / "train")
        random = np.random.default_rng(0)
        chosen = random.permutation(len(found))[: arguments.steps * BATCH_SIZE]
        files = [found[i] for i in chosen]
        start = time.monotonic()
        decoded = images.decode(
            files,
            labeled_images.class_names_of(files),
            Preprocessing(image_size=SIZE),
            StopRequest(),
        )
        decoding = len(files) / (time.monotonic() - start)
        speeds, losses = _alternate(decoded, arguments.rounds)
    print(f"decoding once, before ours: {decoding:.0f} images per second")
    for mode, by_side in speeds.items():
        medians = {side: statistics.median(values) for side, values in by_side.items()}
        words = ", ".join(f"{side} {median:.1f}" for side, median in medians.items())
        ratio = statistics.median(
            own / other for own, other in zip(by_side["ours"], by_side["reference"], strict=True)
        )
        print(f"{mode}: {words} images per second; median of the rounds' ratios {ratio:.2f}")
    for side, by_step in losses.items():
        print(f"{side}: losses {' '.join(f'{loss:.3f}' for loss in by_step)}")
    results = {"images_per_second": speeds, "losses": losses, "decoding": decoding}
    print_results(["torch", "torchvision", "pillow"], **results)


def _alternate(files: images.ImageSet, rounds: int) -> tuple[Speeds, dict[str, Losses]]:
    order = np.arange(len(files) // BATCH_SIZE * BATCH_SIZE)
    speeds: Speeds = {}
    losses: dict[str, Losses] = {}
    for number in range(rounds):
        for mode, augment in (("as they are", False), ("with random changes", True)):
            by_side = speeds.setdefault(mode, {"reference": [], "ours": []})
            for side, train in (("reference", reference), ("ours", ours)):
                start = time.monotonic()
                found = train(files, order, augment=augment)
                by_side[side].append(len(order) / (time.monotonic() - start))
                if not augment:
                    losses[side] = found
                print(f"round {number}: {mode}, {side}: {by_side[side][-1]:.1f}", flush=True)
    return speeds, losses


if __name__ == "__main__":
    main()
