"""One step of the training: pictures in, gradients, new weights."""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from training.augmentation import Augmentation, Blend, Draws, draw_blend
from training.cluster import Cluster
from training.evaluation import to_images
from training.hyperparameters import Hyperparameters
from training.network import Classifier
from training.pictures import Pictures
from training.recipe import Arithmetic


class TrainingStep:
    """Changes a classifier's weights by one batch after another.

    Chance is drawn for the whole batch from the seed and the step's number; each of several
    processes takes its share of it.
    """

    def __init__(
        self,
        classifier: Classifier,
        optimizer: Optimizer,
        pictures: Pictures,
        hyperparameters: Hyperparameters,
        *,
        arithmetic: Arithmetic,
        cluster: Cluster,
        weights: npt.NDArray[np.float32] | None,
    ) -> None:
        """Learn from `pictures`; `weights` are the classes' (C,) in the loss."""
        self.classifier, self.optimizer, self.pictures = classifier, optimizer, pictures
        self.hyperparameters = hyperparameters
        self.arithmetic, self.cluster = arithmetic, cluster
        self.augmentation = Augmentation.of(hyperparameters)
        self.weights = None if weights is None else torch.from_numpy(weights).to(arithmetic.device)
        self.model: Callable[[Tensor], Tensor] = classifier
        self._parallel: DistributedDataParallel | None = None

    def connect(self) -> None:
        """Compile the classifier and connect it with the other processes' ones.

        Anew whenever other layers learn than before.
        """
        # The gradients' hooks of an earlier one are gone with it.
        self.model, self._parallel = self.classifier, None
        if self.cluster.world_size > 1:
            self.model = self._parallel = DistributedDataParallel(self.classifier)
        if self.hyperparameters.compile:
            self.model = torch.compile(self.model)

    def __call__(self, number: int, batch: npt.NDArray[np.int64], learning_rate: float) -> Tensor:
        """Make step `number` with the pictures that `batch` names.

        Returns:
            Summed loss, right answers and pictures of this process's share, on the device.
        """
        random = np.random.default_rng((self.hyperparameters.seed, number))
        draws = self.augmentation.draw(len(batch), random)
        blend = draw_blend(
            len(batch), self.hyperparameters.mixup, self.hyperparameters.cutmix, random
        )
        # Of dropout alone, which each process draws for itself.
        torch.manual_seed(int(random.integers(2**62)) + self.cluster.rank)
        own = np.arange(len(batch))[self.cluster.rank :: self.cluster.world_size]
        parts = np.array_split(own, min(self.hyperparameters.gradient_accumulation_steps, len(own)))
        totals = torch.zeros(3, dtype=torch.float64, device=self.arithmetic.device)
        for part in parts:
            # Processes average their gradients once, at the last part.
            with self._apart() if part is not parts[-1] else contextlib.nullcontext():
                totals += self._add_gradients(batch, part, draws, blend)
        self._update(learning_rate)
        return totals

    def _add_gradients(
        self,
        batch: npt.NDArray[np.int64],
        part: npt.NDArray[np.int64],
        draws: Draws,
        blend: Blend | None,
    ) -> Tensor:
        images, labels = self._load(batch[part])
        if blend is not None:
            blend = blend.of(part)
            # Before the other changes, which both share then.
            others, other_labels = self._load(np.roll(batch, 1)[part])
            images = blend(images, others)
        images = self.augmentation(images, draws.of(part))
        with self.arithmetic.autocast():
            logits = self.model(images).float()
        losses = self._losses(logits, labels)
        if blend is not None:
            share = blend.share.to(losses.device, non_blocking=True)
            losses = share * losses + (1 - share) * self._losses(logits, other_labels)
        loss = losses.sum()
        # Processes average their gradients: each one's share is of the batch, not of its part.
        (loss * self.cluster.world_size / len(batch)).backward()  # type: ignore[no-untyped-call]
        right = (logits.argmax(dim=1) == labels).sum()
        pictures = torch.full_like(right, len(part))
        return torch.stack([loss.detach().double(), right.double(), pictures.double()])

    def _load(self, indices: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        device = self.arithmetic.device
        labels = torch.from_numpy(self.pictures.labels[indices]).to(device, non_blocking=True)
        return to_images(self.pictures.pixels[indices], device), labels

    def _losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(
            logits,
            labels,
            self.weights,
            reduction="none",
            label_smoothing=self.hyperparameters.label_smoothing,
        )

    def _update(self, learning_rate: float) -> None:
        longest = self.hyperparameters.gradient_clip_norm
        if longest is not None:
            nn.utils.clip_grad_norm_(self.classifier.parameters(), longest)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["factor"]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _apart(self) -> AbstractContextManager[None]:
        if self._parallel is None:
            return contextlib.nullcontext()
        return self._parallel.no_sync()
