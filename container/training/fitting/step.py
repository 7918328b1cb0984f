"""One step of the training: images in, gradients, new weights."""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from container.debugger.profiler.timeline import BACKWARD, COPY, DATA, FORWARD, OPTIMIZER
from container.debugger.recording.debug_session import Observer
from container.training.data.augmentation import Augmentation, Blend, Draws, draw_blend
from container.training.data.images import ImageSet
from container.training.device import Arithmetic
from container.training.evaluation.inference import to_images
from container.training.fitting.cluster import Cluster
from container.training.hyperparameters import Hyperparameters

Model: TypeAlias = Callable[[Tensor], Tensor]


class TrainingStep:
    """Changes a classifier's weights by one batch after another.

    Chance is drawn for the whole batch from the seed and the step's number; each of several
    processes takes its share of it.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        images: ImageSet,
        hyperparameters: Hyperparameters,
        *,
        arithmetic: Arithmetic,
        cluster: Cluster,
        half_size_steps: int,
        class_weights: npt.NDArray[np.float32] | None,
    ) -> None:
        """Learn from `images`, each class with its weight (C,) in the loss."""
        self.optimizer, self.images = optimizer, images
        self.hyperparameters = hyperparameters
        self.arithmetic, self.cluster = arithmetic, cluster
        self.half_size_steps = half_size_steps
        self.augmentation = Augmentation.of(hyperparameters)
        self.class_weights: Tensor | None = None
        if class_weights is not None:
            self.class_weights = torch.from_numpy(class_weights).to(arithmetic.device)

    def __call__(
        self,
        model: Model,
        number: int,
        batch: npt.NDArray[np.int64],
        learning_rate: float,
        observer: Observer | None = None,
    ) -> Tensor:
        """Make step `number` of `model` with the images that `batch` names.

        An observer hears of it, of its images from the first part alone.

        Returns:
            Summed loss, right answers and images of this process's share, on the device.
        """
        observer = observer or Observer()
        random = np.random.default_rng((self.hyperparameters.seed, number))
        draws = self.augmentation.draw(len(batch), random)
        blend = draw_blend(
            len(batch), self.hyperparameters.mixup, self.hyperparameters.cutmix, random
        )
        # Of dropout alone, which each process draws for itself.
        torch.manual_seed(int(random.integers(2**62)) + self.cluster.rank)
        rank, world_size = self.cluster.rank, self.cluster.world_size
        # Of each part every process has some, as batch normalization exchanges its statistics.
        count = min(self.hyperparameters.gradient_accumulation_steps, len(batch) // world_size)
        parts = [part[rank::world_size] for part in np.array_split(np.arange(len(batch)), count)]
        totals = torch.zeros(3, dtype=torch.float64, device=self.arithmetic.device)
        seeing = _at_half_size(model) if number < self.half_size_steps else model
        for part in parts:
            # Processes average their gradients once, at the last part.
            with _apart(model) if part is not parts[-1] else contextlib.nullcontext():
                totals += self._add_gradients(seeing, batch, part, draws, blend, observer=observer)
        observer.gradients()
        with observer.phase(OPTIMIZER):
            self._update(learning_rate)
        observer.updated()
        observer.loss(totals)
        return totals

    def _add_gradients(
        self,
        model: Model,
        batch: npt.NDArray[np.int64],
        part: npt.NDArray[np.int64],
        draws: Draws,
        blend: Blend | None,
        *,
        observer: Observer,
    ) -> Tensor:
        images, labels = self._load(batch[part], observer)
        if blend is not None:
            blend = blend.of(part)
            # Before the other changes, which both share then.
            others, other_labels = self._load(np.roll(batch, 1)[part], observer)
            images = blend(images, others)
        images = self.augmentation(images, draws.of(part))
        # Of the step's first part alone.
        if part[0] == self.cluster.rank:
            observer.batch(self.images.labels[batch[part]], images)
        with observer.phase(FORWARD):
            with self.arithmetic.autocast():
                logits = model(images).float()
            losses = self._losses(logits, labels)
            if blend is not None:
                share = blend.share.to(losses.device, non_blocking=True)
                losses = share * losses + (1 - share) * self._losses(logits, other_labels)
            loss = losses.sum()
        # Processes average their gradients: each one's share is of the batch, not of its part.
        with observer.phase(BACKWARD):
            (loss * self.cluster.world_size / len(batch)).backward()  # type: ignore[no-untyped-call]
        right = (logits.argmax(dim=1) == labels).sum()
        count = torch.full_like(right, len(part))
        return torch.stack([loss.detach().double(), right.double(), count.double()])

    def _load(self, indices: npt.NDArray[np.int64], observer: Observer) -> tuple[Tensor, Tensor]:
        device = self.arithmetic.device
        with observer.phase(DATA):
            pixels, labels = self.images.pixels[indices], self.images.labels[indices]
        with observer.phase(COPY):
            there = torch.from_numpy(labels).to(device, non_blocking=True)
            return to_images(pixels, device), there

    def _losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(
            logits,
            labels,
            self.class_weights,
            reduction="none",
            label_smoothing=self.hyperparameters.label_smoothing,
        )

    def _update(self, learning_rate: float) -> None:
        longest = self.hyperparameters.gradient_clip_norm
        if longest is not None:
            groups = self.optimizer.param_groups
            parameters = [parameter for group in groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(parameters, longest)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["factor"]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def _at_half_size(model: Model) -> Model:
    """Return `model` for images (N, 3, H, W) that it sees as (N, 3, H // 2, W // 2)."""
    return lambda images: model(avg_pool2d(images, 2))


def _apart(model: Model) -> AbstractContextManager[None]:
    """Return the context in which processes don't exchange gradients."""
    if isinstance(model, DistributedDataParallel):
        return model.no_sync()
    return contextlib.nullcontext()
