"""Loops of PyTorch's users: SqueezeNet in float32, a DataLoader that decodes with Pillow.

`torchvision` has the transforms and the optimizer of torchvision's reference scripts for
classification. `students` trains a new last layer of the frozen network.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.models import squeezenet1_0

from benchmarks.rivals.budget import History, Job, run
from container.networks.network import MEAN, STD

WORKERS = 2

# Of `torchvision`. With 0.0003 or more, all outputs of these weights become zero for some seeds.
LEARNING_RATE = 1e-4

Batches: TypeAlias = Iterable[tuple[Tensor, Tensor]]


def main() -> None:
    """Train within the budget."""
    run(lambda job, *rest: RECIPES[job.recipe](job, *rest))


def torchvision(job: Job, epochs: int, history: History) -> None:
    """Train all layers."""
    size = job.image_size
    random = [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip()]
    fixed = [transforms.Resize(round(size / 0.875)), transforms.CenterCrop(size)]
    training, validation, network = _prepare(job, random, fixed, batch_size=32)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=LEARNING_RATE, momentum=0.9, weight_decay=1e-4
    )
    schedule = CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        train_epoch(network, training, optimizer)
        schedule.step()
        history.add(accuracy(network, validation))


def students(job: Job, epochs: int, history: History) -> None:
    """Train the last layer."""
    fixed = [transforms.Resize((job.image_size, job.image_size))]
    random = [*fixed, transforms.RandomHorizontalFlip()]
    training, validation, network = _prepare(job, random, fixed, batch_size=64)
    network.requires_grad_(requires_grad=False)
    last_layer = network.get_submodule("classifier").requires_grad_()
    optimizer = torch.optim.Adam(last_layer.parameters(), lr=0.001)
    for _ in range(epochs):
        train_epoch(network, training, optimizer)
        history.add(accuracy(network, validation))


RECIPES = {"torchvision": torchvision, "students": students}


def loader(
    folder: Path, changes: Sequence[Callable[[object], object]], *, batch_size: int, shuffle: bool
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Return batches of the images of class folders, after random or fixed changes."""
    normalize = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    files = ImageFolder(folder, transforms.Compose([*changes, *normalize]))
    return DataLoader(files, batch_size=batch_size, shuffle=shuffle, num_workers=WORKERS)


def train_epoch(network: nn.Module, batches: Batches, optimizer: torch.optim.Optimizer) -> None:
    """Train on each batch once."""
    network.train()
    for images, labels in batches:
        optimizer.zero_grad()
        cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def accuracy(network: nn.Module, batches: Batches) -> float:
    """Return the accuracy in evaluation mode."""
    network.eval()
    with torch.no_grad():
        right = [(network(images).argmax(1) == labels).float() for images, labels in batches]
    return float(torch.cat(right).mean())


def _prepare(
    job: Job,
    random: Sequence[Callable[[object], object]],
    fixed: Sequence[Callable[[object], object]],
    batch_size: int,
) -> tuple[Batches, Batches, nn.Module]:
    """Return batches for training and validation, and the network with a new last layer."""
    torch.manual_seed(job.seed)
    training = loader(Path(job.folder, "train"), random, batch_size=batch_size, shuffle=True)
    validation = loader(Path(job.folder, "val"), fixed, batch_size=batch_size, shuffle=False)
    network = squeezenet1_0(weights="DEFAULT")
    network.classifier[1] = nn.Conv2d(
        512, len([*Path(job.folder, "train").iterdir()]), kernel_size=1
    )
    return training, validation, network


if __name__ == "__main__":
    main()
