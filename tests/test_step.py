"""One training step."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from container.networks.network import Classifier
from container.training.data.images import ImageSet
from container.training.device import Arithmetic
from container.training.fitting.cluster import Cluster
from container.training.fitting.step import TrainingStep
from container.training.hyperparameters import Hyperparameters

COUNT = 13
BATCH = np.arange(COUNT)


@pytest.fixture
def images() -> ImageSet:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (COUNT, 16, 16, 3), np.uint8)
    return ImageSet(pixels, random.integers(0, 3, COUNT), (Path("x"),) * COUNT, "")


@pytest.fixture
def gradients(images: ImageSet) -> Callable[..., list[torch.Tensor]]:
    """Return a function that makes a step with a learning rate of 0 and returns the gradients."""

    def compute(
        *,
        rank: int = 0,
        world_size: int = 1,
        weights: npt.NDArray[np.float32] | None = None,
        **settings: object,
    ) -> list[torch.Tensor]:
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.GroupNorm(1, 4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)
        )
        classifier = Classifier(network)
        classifier(torch.zeros(1, 3, 16, 16))
        kept: list[torch.Tensor] = []

        class Kept(torch.optim.SGD):
            def step(self, _closure: object = None) -> None:  # type: ignore[override]
                for group in self.param_groups:
                    kept.extend(p.grad.clone() for p in group["params"])

        optimizer = Kept([{"params": list(network.parameters()), "factor": 1.0}], lr=0.0)
        step = TrainingStep(
            optimizer,
            images,
            Hyperparameters(precision="float32", **settings),  # type: ignore[arg-type]
            arithmetic=Arithmetic(torch.device("cpu"), torch.float32),
            cluster=Cluster(rank, world_size),
            half_size_steps=0,
            class_weights=weights,
        )
        totals = step(classifier, 7, BATCH, 0.0)
        assert totals[2] == len(BATCH[rank::world_size])
        return kept

    return compute


def assert_equal(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert found
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


ALL_CHANGES = {"horizontal_flip": True, "cutout": 0.2, "label_smoothing": 0.1, "mixup": 0.4}


@pytest.mark.parametrize("settings", [{}, ALL_CHANGES, {"cutmix": 1.0}])
@pytest.mark.parametrize("parts", [2, 5, 100])
def test_accumulated_gradients_equal_those_of_the_whole_batch(
    gradients: Callable[..., list[torch.Tensor]], parts: int, settings: dict[str, object]
) -> None:
    whole = gradients(**settings)

    assert_equal(gradients(gradient_accumulation_steps=parts, **settings), whole)


@pytest.mark.parametrize("world_size", [2, 4])
def test_mean_gradients_of_ranks_equal_those_of_one_process(
    gradients: Callable[..., list[torch.Tensor]], world_size: int
) -> None:
    shares = [gradients(rank=r, world_size=world_size, **ALL_CHANGES) for r in range(world_size)]

    means = [torch.stack(parts).mean(dim=0) for parts in zip(*shares, strict=True)]
    assert_equal(means, gradients(**ALL_CHANGES))


def test_without_augmentation_the_loss_is_the_mean_cross_entropy(
    gradients: Callable[..., list[torch.Tensor]], images: ImageSet
) -> None:
    found = gradients(augment=False, label_smoothing=0.2)

    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.GroupNorm(1, 4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)
    )
    classifier = Classifier(network)
    classifier(torch.zeros(1, 3, 16, 16))
    pixels = torch.from_numpy(images.pixels).permute(0, 3, 1, 2).float()
    labels = torch.from_numpy(images.labels)
    loss = cross_entropy(classifier(pixels), labels, label_smoothing=0.2)
    loss.backward()  # type: ignore[no-untyped-call]
    assert_equal(found, [p.grad for p in network.parameters() if p.grad is not None])


def test_class_weights_multiply_gradients(
    gradients: Callable[..., list[torch.Tensor]],
) -> None:
    only = [gradients(weights=np.eye(3, dtype=np.float32)[label]) for label in range(3)]
    weighted = gradients(weights=np.array([1.0, 2.0, 5.0], dtype=np.float32))

    sums = [one + 2 * two + 5 * three for one, two, three in zip(*only, strict=True)]
    assert_equal(weighted, sums)


def test_the_first_steps_use_images_at_half_size(images: ImageSet) -> None:
    seen = []

    class Seeing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(images)
            logits: torch.Tensor = self.head(images.mean(dim=(2, 3)))
            return logits

    network = Seeing()
    groups = [{"params": list(network.parameters()), "factor": 1.0}]
    step = TrainingStep(
        torch.optim.SGD(groups, lr=0.0),
        images,
        Hyperparameters(augment=False),
        arithmetic=Arithmetic(torch.device("cpu"), torch.float32),
        cluster=Cluster(0, 1),
        half_size_steps=3,
        class_weights=None,
    )
    step(network, 2, BATCH, 0.0)
    step(network, 3, BATCH, 0.0)

    half, whole = seen
    assert whole.shape == (COUNT, 3, 16, 16)
    assert half.shape == (COUNT, 3, 8, 8)
    # Each pixel is the mean of four.
    torch.testing.assert_close(half[:, :, 7, 0], whole[:, :, 14:, :2].mean(dim=(2, 3)))


def test_gradients_are_clipped_to_the_norm(gradients: Callable[..., list[torch.Tensor]]) -> None:
    def length(parts: list[torch.Tensor]) -> float:
        return float(torch.cat([part.flatten() for part in parts]).norm())

    free = gradients()
    assert length(gradients(gradient_clip_norm=length(free) / 3)) == pytest.approx(length(free) / 3)
    assert length(gradients(gradient_clip_norm=length(free) * 3)) == pytest.approx(length(free))
