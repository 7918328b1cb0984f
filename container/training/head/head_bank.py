"""A bank of linear heads that learn from the same features side by side."""

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

# Of features on their way through the bank, and the most of a step.
BATCH_SIZE = 1024

# A few images make several steps an epoch all the same.
STEPS_PER_EPOCH, MIN_BATCH_SIZE = 8, 32

# Multiplications of the forward passes of all epochs: half a minute or so on two cores.
MAX_WORK = 10**12

# Multiplications of a step's forward pass, below which a second thread's wait for the first, on a
# machine with other work, costs more than it saves: ten times the seconds at 32 images and 12
# heads of 2 classes.
SMALL_STEP = 10**7

# Of nn.BatchNorm1d, unless it is told another.
EPSILON = 1e-5


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast a head learns, and how fast it forgets."""

    learning_rate: float
    """Peak of the one-cycle schedule."""

    weight_decay: float

    def __str__(self) -> str:
        """Return both as in a log line."""
        return f"learning_rate={self.learning_rate:g} weight_decay={self.weight_decay:g}"


@dataclass(frozen=True, slots=True)
class Standardization:
    """Makes every feature's mean 0 and variance 1, as a head's nn.BatchNorm1d does."""

    mean: Tensor
    """Of shape (D,), of the training features, as is the variance."""

    variance: Tensor

    @classmethod
    def of(cls, features: Features, device: torch.device) -> Self:
        """Measure the features, a part of the mapped file at a time."""
        parts = [features.values[part] for part in _parts(features)]
        mean = sum(part.sum(axis=0, dtype=np.float64) for part in parts) / len(features)
        variance = sum(((part - mean) ** 2).sum(axis=0) for part in parts) / len(features)
        moments = np.stack([mean, variance]).astype(np.float32)
        return cls(*torch.from_numpy(moments).to(device))

    @property
    def deviation(self) -> Tensor:
        """Return (D,): what features are divided by."""
        return torch.sqrt(self.variance + EPSILON)

    def __call__(self, values: npt.NDArray[np.float32]) -> Tensor:
        """Return standardized features (n, D), on the device."""
        # Torch wants memory that it may write, which the mapped file is not.
        own = torch.from_numpy(np.require(values, requirements="W")).to(self.mean.device)
        return (own - self.mean) / self.deviation


class Bank(nn.Module):
    """Heads that all see the same features, computed as one.

    A head's weights are in units of its learning rate: Adam's steps are of the learning rate's
    length, whatever the gradient's, and so one optimizer at a rate of 1 suits all heads.
    """

    learning_rates: Tensor
    weight_decays: Tensor

    def __init__(self, rates: Sequence[Rates], features: int, classes: int) -> None:
        """Start every head from equal probabilities."""
        super().__init__()
        self.rates = rates
        self.scaled_weights = nn.Parameter(torch.zeros(len(rates), classes, features))
        self.scaled_biases = nn.Parameter(torch.zeros(len(rates), classes, 1))
        pairs = torch.tensor([(own.learning_rate, own.weight_decay) for own in rates])
        self.register_buffer("learning_rates", pairs[:, 0].view(-1, 1, 1))
        self.register_buffer("weight_decays", pairs[:, 1].view(-1, 1, 1))

    @property
    def weights(self) -> Tensor:
        """Return (heads, C, D)."""
        return self.learning_rates * self.scaled_weights

    @property
    def biases(self) -> Tensor:
        """Return (heads, C)."""
        return (self.learning_rates * self.scaled_biases).squeeze(2)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (n, heads, C) for standardized features (n, D)."""
        logits = linear(features, self.weights.flatten(0, 1), self.biases.flatten())
        return logits.view(len(features), len(self.rates), -1)

    @torch.no_grad()
    def decay(self, share: float) -> None:
        """Let the weights, not the biases, forget, at a share of the peak learning rates."""
        self.scaled_weights.mul_(1 - share * self.learning_rates * self.weight_decays)

    @torch.inference_mode()
    def evaluate(self, features: Features, standardize: Standardization) -> list[Evaluation]:
        """Evaluate every head."""
        losses = torch.zeros(len(self.rates), dtype=torch.float64)
        answers = []
        for part in _parts(features):
            logits = self(standardize(features.values[part])).cpu()
            labels = torch.from_numpy(features.labels[part])
            for head, own in enumerate(logits.unbind(dim=1)):
                losses[head] += cross_entropy(own, labels, reduction="sum")
            answers.append(logits.argmax(dim=2))
        predicted, num_classes = torch.cat(answers).numpy(), logits.shape[2]
        return [
            Evaluation(float(loss), confusion_matrix(features.labels, own, num_classes))
            for loss, own in zip(losses / len(features), predicted.T, strict=True)
        ]


class Lesson:
    """What the heads of a bank learn from, and how."""

    def __init__(
        self,
        bank: Bank,
        features: Features,
        standardize: Standardization,
        hyperparameters: Hyperparameters,
        *,
        class_weights: npt.NDArray[np.float32] | None,
    ) -> None:
        """Make the optimizer and the schedule; the weights of the classes (C,) are the loss's."""
        self.bank, self.features, self.standardize = bank, features, standardize
        self.seed, self.label_smoothing = hyperparameters.seed, hyperparameters.label_smoothing
        self.device = standardize.mean.device
        self.class_weights = None
        if class_weights is not None:
            self.class_weights = torch.from_numpy(class_weights).to(self.device)
        # Gradients are in the same units, hence the smaller epsilon.
        self.optimizer = torch.optim.Adam(bank.parameters(), eps=1e-12, fused=True)
        batch_size = max(len(features) // STEPS_PER_EPOCH, MIN_BATCH_SIZE)
        self.steps_per_epoch = math.ceil(len(features) / min(batch_size, BATCH_SIZE))
        work = len(features) * bank.scaled_weights.numel()
        self.is_small = work / self.steps_per_epoch < SMALL_STEP
        self.epochs = min(hyperparameters.head_epochs, max(MAX_WORK // work, 1))
        self.total_steps = self.epochs * self.steps_per_epoch

    def train_one_epoch(self, epoch: int) -> None:
        """Make one pass over the features."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.features))
        with _threads(1 if self.is_small else torch.get_num_threads()):
            for place, batch in enumerate(np.array_split(order, self.steps_per_epoch)):
                number = epoch * self.steps_per_epoch + place
                self._step(batch, one_cycle(number, self.total_steps))

    def _step(self, batch: npt.NDArray[np.int64], share: float) -> None:
        """Make a step of AdamW (Loshchilov and Hutter 2019)."""
        logits = self.bank(self.standardize(self.features.values[batch]))
        labels = torch.from_numpy(self.features.labels[batch]).to(self.device)
        # Each head's gradient is that of its own mean loss: the sum over heads mixes none.
        loss = cross_entropy(
            logits.flatten(0, 1),
            labels.repeat_interleave(logits.shape[1]),
            self.class_weights,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
        (loss / len(batch)).backward()  # type: ignore[no-untyped-call]
        self.bank.decay(share)
        self.optimizer.param_groups[0]["lr"] = share
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
