"""A bank of linear heads that are trained on the same features in parallel."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from container.training.evaluation.evaluation import Evaluation, confusion_matrix
from container.training.head.features import Features
from container.training.hyperparameters import Hyperparameters
from container.training.schedule import one_cycle

# Features in a forward pass, and the maximum of a training step.
BATCH_SIZE = 1024

# A small data set still has several steps an epoch.
STEPS_PER_EPOCH, MIN_BATCH_SIZE = 8, 32

# Multiplications in the forward passes of all epochs: about half a minute on two cores.
MAX_WORK = 10**12

# Multiplications in a step's forward pass, below which one thread is faster. On a busy machine two
# threads that wait for each other take ten times as long, at 32 images and 12 heads of 2 classes.
SMALL_STEP = 10**7

# The default of nn.BatchNorm1d.
EPSILON = 1e-5


@dataclass(frozen=True, slots=True)
class Rates:
    """Learning rate and weight decay of a head."""

    learning_rate: float
    """Peak of the one-cycle schedule."""

    weight_decay: float

    def __str__(self) -> str:
        """Return both for a log line."""
        return f"learning_rate={self.learning_rate:g} weight_decay={self.weight_decay:g}"


@dataclass(frozen=True, slots=True)
class Standardization:
    """Scales every feature to mean 0 and variance 1, as the head's nn.BatchNorm1d does."""

    mean: Tensor
    """Of the training features, of shape (D,)."""

    variance: Tensor
    """Of the training features, of shape (D,)."""

    @classmethod
    def of(cls, features: Features, device: torch.device) -> Self:
        """Compute mean and variance, one part of the mapped file at a time."""
        parts = [features.values[part] for part in _parts(features)]
        mean = sum(part.sum(axis=0, dtype=np.float64) for part in parts) / len(features)
        variance = sum(((part - mean) ** 2).sum(axis=0) for part in parts) / len(features)
        moments = np.stack([mean, variance]).astype(np.float32)
        return cls(*torch.from_numpy(moments).to(device))

    @property
    def deviation(self) -> Tensor:
        """The standard deviation (D,), as nn.BatchNorm1d computes it."""
        return torch.sqrt(self.variance + EPSILON)

    def __call__(self, values: npt.NDArray[np.float32]) -> Tensor:
        """Return standardized features (n, D), on the device."""
        # torch needs writable memory, and the mapped file is read-only.
        copy = torch.from_numpy(np.require(values, requirements="W")).to(self.mean.device)
        return (copy - self.mean) / self.deviation


class Bank(nn.Module):
    """Heads with the same input, computed as one layer.

    The parameters are the heads' weights divided by their learning rates. The length of Adam's
    steps is the learning rate, independent of the gradient's length, so one optimizer with a rate
    of 1 suits all heads.
    """

    learning_rates: Tensor
    weight_decays: Tensor

    def __init__(self, rates: Sequence[Rates], features: int, classes: int) -> None:
        """Start all heads from equal probabilities."""
        super().__init__()
        self.rates = rates
        self.scaled_weights = nn.Parameter(torch.zeros(len(rates), classes, features))
        self.scaled_biases = nn.Parameter(torch.zeros(len(rates), classes, 1))
        pairs = torch.tensor([(head.learning_rate, head.weight_decay) for head in rates])
        self.register_buffer("learning_rates", pairs[:, 0].view(-1, 1, 1))
        self.register_buffer("weight_decays", pairs[:, 1].view(-1, 1, 1))

    @property
    def weights(self) -> Tensor:
        """Of all heads, of shape (heads, C, D)."""
        return self.learning_rates * self.scaled_weights

    @property
    def biases(self) -> Tensor:
        """Of all heads, of shape (heads, C)."""
        return (self.learning_rates * self.scaled_biases).squeeze(2)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (n, heads, C) for standardized features (n, D)."""
        logits = linear(features, self.weights.flatten(0, 1), self.biases.flatten())
        return logits.view(len(features), len(self.rates), -1)

    @torch.no_grad()
    def decay(self, factor: float) -> None:
        """Apply weight decay to the weights, not the biases, at the peak rates times `factor`."""
        self.scaled_weights.mul_(1 - factor * self.learning_rates * self.weight_decays)

    @torch.inference_mode()
    def evaluate(self, features: Features, standardize: Standardization) -> list[Evaluation]:
        """Evaluate all heads."""
        losses = torch.zeros(len(self.rates), dtype=torch.float64)
        answers = []
        for part in _parts(features):
            logits = self(standardize(features.values[part])).cpu()
            labels = torch.from_numpy(features.labels[part])
            for head, head_logits in enumerate(logits.unbind(dim=1)):
                losses[head] += cross_entropy(head_logits, labels, reduction="sum")
            answers.append(logits.argmax(dim=2))
        predicted, num_classes = torch.cat(answers).numpy(), logits.shape[2]
        return [
            Evaluation(float(loss), confusion_matrix(features.labels, classes, num_classes))
            for loss, classes in zip(losses / len(features), predicted.T, strict=True)
        ]


class HeadTrainer:
    """Trains the heads of a bank on features."""

    def __init__(
        self,
        bank: Bank,
        features: Features,
        standardize: Standardization,
        hyperparameters: Hyperparameters,
        *,
        class_weights: npt.NDArray[np.float32] | None,
    ) -> None:
        """Create the optimizer; the loss weights the classes by `class_weights` (C,)."""
        self.bank, self.features, self.standardize = bank, features, standardize
        self.seed = hyperparameters.seed
        self.label_smoothing = hyperparameters.label_smoothing or 0.0
        self.device = standardize.mean.device
        self.class_weights = None
        if class_weights is not None:
            self.class_weights = torch.from_numpy(class_weights).to(self.device)
        # The gradients are scaled by the learning rates too, so epsilon must be smaller.
        self.optimizer = torch.optim.Adam(bank.parameters(), eps=1e-12, fused=True)
        batch_size = max(len(features) // STEPS_PER_EPOCH, MIN_BATCH_SIZE)
        self.steps_per_epoch = math.ceil(len(features) / min(batch_size, BATCH_SIZE))
        work = len(features) * bank.scaled_weights.numel()
        self.is_small = work / self.steps_per_epoch < SMALL_STEP
        self.epochs = min(hyperparameters.head_epochs, max(MAX_WORK // work, 1))
        self.total_steps = self.epochs * self.steps_per_epoch

    def train_one_epoch(self, epoch: int) -> None:
        """Train on all features once."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.features))
        with _threads(1 if self.is_small else torch.get_num_threads()):
            for index, batch in enumerate(np.array_split(order, self.steps_per_epoch)):
                number = epoch * self.steps_per_epoch + index
                self._step(batch, one_cycle(number, self.total_steps))

    def _step(self, batch: npt.NDArray[np.int64], factor: float) -> None:
        """Make a step of AdamW (Loshchilov and Hutter 2019) at the peak rates times `factor`."""
        logits = self.bank(self.standardize(self.features.values[batch]))
        labels = torch.from_numpy(self.features.labels[batch]).to(self.device)
        # The loss is a sum over the heads, so each head has the gradient of its mean loss.
        loss = cross_entropy(
            logits.flatten(0, 1),
            labels.repeat_interleave(logits.shape[1]),
            self.class_weights,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
        (loss / len(batch)).backward()  # type: ignore[no-untyped-call]
        self.bank.decay(factor)
        self.optimizer.param_groups[0]["lr"] = factor
        self.optimizer.step()
        self.optimizer.zero_grad()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _parts(features: Features) -> list[slice]:
    return [slice(start, start + BATCH_SIZE) for start in range(0, len(features), BATCH_SIZE)]
