"""One training step: augmentation, forward and backward pass, optimizer."""

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
    """Updates the weights of a classifier with one batch.

    Random numbers are drawn for the whole batch from the seed and the number of the step, and each
    rank uses its part of them.
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
        """Train on `images`; the loss weights the classes by `class_weights` (C,)."""
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
        """Make step `number` of `model` with the images at the indices `batch`.

        The observer receives the images of the first part only.

        Returns:
            Summed loss, correct answers and images of this rank, on the device.
        """
        observer = observer or Observer()
        random = np.random.default_rng((self.hyperparameters.seed, number))
        draws = self.augmentation.draw(len(batch), random)
        blend = draw_blend(
            len(batch), self.hyperparameters.mixup, self.hyperparameters.cutmix, random
        )
        # For dropout only, which each rank draws independently.
        torch.manual_seed(int(random.integers(2**62)) + self.cluster.rank)
        rank, world_size = self.cluster.rank, self.cluster.world_size
        # Every rank has images of each part, because batch normalization exchanges statistics.
        count = min(self.hyperparameters.gradient_accumulation_steps, len(batch) // world_size)
        parts = [part[rank::world_size] for part in np.array_split(np.arange(len(batch)), count)]
        totals = torch.zeros(3, dtype=torch.float64, device=self.arithmetic.device)
        forward = _at_half_size(model) if number < self.half_size_steps else model
        for part in parts:
            # The ranks average their gradients once, in the last part.
            with _no_sync(model) if part is not parts[-1] else contextlib.nullcontext():
                totals += self._add_gradients(forward, batch, part, draws, blend, observer=observer)
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
            # Before the augmentation, which is then applied to both.
            others, other_labels = self._load(np.roll(batch, 1)[part], observer)
            images = blend(images, others)
        images = self.augmentation(images, draws.of(part))
        # The first part of the step.
        if part[0] == self.cluster.rank:
            observer.batch(self.images.labels[batch[part]], images)
        with observer.phase(FORWARD):
            with self.arithmetic.autocast():
                logits = model(images).float()
            losses = self._losses(logits, labels)
            if blend is not None:
                weight = blend.weight.to(losses.device, non_blocking=True)
                losses = weight * losses + (1 - weight) * self._losses(logits, other_labels)
            loss = losses.sum()
        # The ranks average their gradients, so the mean is over the batch, not over a rank's part.
        with observer.phase(BACKWARD):
            (loss * self.cluster.world_size / len(batch)).backward()  # type: ignore[no-untyped-call]
        correct = (logits.argmax(dim=1) == labels).sum()
        count = torch.full_like(correct, len(part))
        return torch.stack([loss.detach().double(), correct.double(), count.double()])

    def _load(self, indices: npt.NDArray[np.int64], observer: Observer) -> tuple[Tensor, Tensor]:
        device = self.arithmetic.device
        with observer.phase(DATA):
            pixels, labels = self.images.pixels[indices], self.images.labels[indices]
        with observer.phase(COPY):
            return to_images(pixels, device), torch.from_numpy(labels).to(device, non_blocking=True)

    def _losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(
            logits,
            labels,
            self.class_weights,
            reduction="none",
            label_smoothing=self.hyperparameters.label_smoothing or 0.0,
        )

    def _update(self, learning_rate: float) -> None:
        max_norm = self.hyperparameters.gradient_clip_norm
        if max_norm is not None:
            groups = self.optimizer.param_groups
            parameters = [parameter for group in groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(parameters, max_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["factor"]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def _at_half_size(model: Model) -> Model:
    """Return a model that halves images (N, 3, H, W) before `model`."""
    return lambda images: model(avg_pool2d(images, 2))


def _no_sync(model: Model) -> AbstractContextManager[None]:
    """Return the context in which the ranks do not average their gradients."""
    if isinstance(model, DistributedDataParallel):
        return model.no_sync()
    return contextlib.nullcontext()
