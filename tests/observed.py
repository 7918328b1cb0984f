"""Training steps of a small network with an observer."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from container.debugger.recording.debug_session import Observer, Settings
from container.networks.network import Classifier
from container.training.data.images import ImageSet
from container.training.device import Arithmetic
from container.training.fitting.cluster import Cluster
from container.training.fitting.step import Model, TrainingStep
from container.training.hyperparameters import Hyperparameters

IMAGES = 12
BATCH = np.arange(IMAGES)


class Network(nn.Module):
    """Two convolutions; the first one's ReLU works in place."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4, 5, 3)
        self.last = nn.Tanh()
        self.head = nn.Linear(5, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.relu(self.norm(self.conv1(images)))
        logits: torch.Tensor = self.head(self.last(self.conv2(features)).mean(dim=(2, 3)))
        return logits


class TrueNorms(Observer):
    """An observer that also collects the norms of the gradients before the optimizer's step."""

    def __init__(self, settings: Settings | None, network: nn.Module) -> None:
        super().__init__(settings)
        self.network = network
        self.norms: list[dict[str, float]] = []

    def gradients(self) -> None:
        self.norms.append(
            {
                name: float(parameter.grad.norm())
                for name, parameter in self.network.named_parameters()
                if parameter.grad is not None
            }
        )
        super().gradients()


def collection(name: str, **parameters: str) -> dict[str, object]:
    """Return a collection of debughookconfig.json."""
    return {"CollectionName": name, "CollectionParameters": {"save_interval": "1", **parameters}}


def images() -> ImageSet:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (IMAGES, 16, 16, 3), np.uint8)
    return ImageSet(pixels, random.integers(0, 3, IMAGES), (Path("x"),) * IMAGES, "")


def train(
    observer: Observer,
    network: nn.Module,
    *,
    steps: int = 3,
    learning_rate: float = 0.1,
    dtype: torch.dtype = torch.float32,
    wrap: object = None,
    cluster: Cluster = Cluster(0, 1),  # noqa: B008 - nothing changes it
    settings: Mapping[str, object] | None = None,
) -> None:
    """Run steps with an observer."""
    classifier = Classifier(network)
    groups = [{"params": [p for p in network.parameters() if p.requires_grad], "factor": 1.0}]
    step = TrainingStep(
        torch.optim.SGD(groups, lr=0.0, momentum=0.9),
        images(),
        Hyperparameters(**(settings or {})),  # type: ignore[arg-type]
        arithmetic=Arithmetic(torch.device("cpu"), dtype),
        cluster=cluster,
        half_size_steps=0,
        class_weights=None,
    )
    observer.start(network, classifier.normalize, total_steps=steps, first_step=0, epoch=0)
    model: Model = wrap(classifier) if callable(wrap) else classifier
    classifier.train()
    for number in range(steps):
        observer.begin_step(number, 0)
        step(model, number, BATCH, learning_rate, observer)
