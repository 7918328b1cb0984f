"""What unset hyperparameters become for a job's network and data.

Only unset `debug_rules` depend on nothing else: `container.debugger.rules.selection` has them.
"""

import dataclasses
import itertools
import math
import os
import shutil
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np
import numpy.typing as npt

from container.classifier.errors import UserError
from container.classifier.labeled_images import IMBALANCE
from container.classifier.manifest import FLIPS
from container.networks.network import SMALL
from container.training.data.sampling import Balance
from container.training.hyperparameters import Hyperparameters

NumberT = TypeVar("NumberT", int, float)

SMALL_IMAGE_SIZE, IMAGENET_IMAGE_SIZE = 128, 224

_LEARNING_RATES = {
    # optimizer: (`small`, torchvision's from scratch, pretrained)
    "adamw": (0.005, 0.0005, 0.0005),
    "adam": (0.005, 0.0005, 0.0005),
    "sgd": (0.05, 0.01, 0.002),
    "muon": (0.02, 0.01, 0.001),
}
_WEIGHT_DECAYS = {"adamw": 0.01, "adam": 0.0, "sgd": 0.0005, "muon": 0.01}

# For new heads, on standardized features. A frozen stage has a few hundred steps, and the learning
# rate scales the decay of a step: it takes far more weight decay than fine-tuning.
HEAD_LEARNING_RATES: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03)
HEAD_WEIGHT_DECAYS: tuple[float, ...] = (0.3, 1.0, 3.0)

# In fine-tuning, smaller batches make more steps (measured by `benchmarks.fine_tuning`).
FINE_TUNING_BATCH_SIZE, BATCH_SIZE = 32, 64
FINE_TUNING_LABEL_SMOOTHING = 0.1

# A job with `max_minutes` ends before.
MOST_EPOCHS = 10_000

# Fraction of the epochs in which only the last layers of a pretrained network learn.
FIRST_STAGE = 1 / 3

# The moving averages of weights and statistics span a twentieth of the run.
AVERAGED_RUNS = 20

# The statistics of batch normalization average over a few batches at least.
MAX_STATISTICS_MOMENTUM = 0.4


def wants_download(hyperparameters: Hyperparameters) -> bool:
    """Return whether a job without a `weights` channel starts from torchvision's weights."""
    if hyperparameters.pretrained is None:
        return hyperparameters.network != SMALL
    return hyperparameters.pretrained


def image_size(hyperparameters: Hyperparameters) -> int:
    """Return the network's input size in pixels."""
    if hyperparameters.image_size is not None:
        return hyperparameters.image_size
    return SMALL_IMAGE_SIZE if hyperparameters.network == SMALL else IMAGENET_IMAGE_SIZE


def flips(hyperparameters: Hyperparameters) -> list[tuple[int, ...]]:
    """Return the axes of the flips over which test-time augmentation averages.

    Raises:
        UserError: test-time augmentation is on, and no flip is allowed.
    """
    if not hyperparameters.test_time_augmentation:
        return []
    horizontal, vertical = hyperparameters.horizontal_flip, hyperparameters.vertical_flip
    if not (horizontal or vertical):
        raise UserError(
            "test_time_augmentation averages over flips, and no flip is allowed: set "
            "horizontal_flip=true or vertical_flip=true if they change no label"
        )
    allowed = (horizontal, vertical, horizontal and vertical)
    return [axes for axes, is_allowed in zip(FLIPS, allowed, strict=True) if is_allowed]


def head_candidates(hyperparameters: Hyperparameters) -> list[tuple[float, float]]:
    """Return the learning rates and weight decays that the frozen stage tries."""
    learning_rates, weight_decays = HEAD_LEARNING_RATES, HEAD_WEIGHT_DECAYS
    # If fine-tuning follows, the given values are for fine-tuning.
    if hyperparameters.fine_tuning == "none":
        if hyperparameters.learning_rate is not None:
            learning_rates = (hyperparameters.learning_rate,)
        if hyperparameters.weight_decay is not None:
            weight_decays = (hyperparameters.weight_decay,)
    return list(itertools.product(learning_rates, weight_decays))


def check_compiler(hyperparameters: Hyperparameters) -> None:
    """Check that `compile=true` has a compiler.

    Raises:
        UserError: it has none.
    """
    if hyperparameters.compile and shutil.which(os.environ.get("CXX", "g++")) is None:
        raise UserError(
            "compile=true needs a C++ compiler, and g++ is missing: install it or unset it"
        )


def batch_size(hyperparameters: Hyperparameters, *, pretrained: bool) -> int:
    """Return the number of images of a step."""
    if hyperparameters.batch_size is not None:
        return hyperparameters.batch_size
    return FINE_TUNING_BATCH_SIZE if pretrained else BATCH_SIZE


def min_images_per_rank(images: int, batch_size: int, ranks: int) -> int:
    """Return the number of images of a batch that the rank with the fewest receives.

    Raises:
        UserError: it receives none.
    """
    batches = math.ceil(images / batch_size)
    count = images // batches // ranks
    if count == 0:
        raise UserError(
            f"{images} images in batches of {batch_size} leave some of the {ranks} "
            "processes without any: use a larger batch_size or fewer hosts and GPUs"
        )
    return count


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """The settings of a training run, with a value for every unset hyperparameter."""

    epochs: int
    """Epochs of steps; 0 if the backbone of a pretrained network stays frozen."""

    first_stage_epochs: int
    """The first epochs, in which only the last layers learn."""

    batch_size: int
    steps_per_epoch: int
    half_size_steps: int
    """The first steps, with images at half their size (fast.ai's progressive resizing)."""

    learning_rate: float
    """Peak of the one-cycle schedule."""

    optimizer: str
    weight_decay: float
    balance: Balance
    objective: str
    given_ema_decay: float | None
    label_smoothing: float
    max_minutes: float | None = None
    """Time budget of the job, which decides how many steps fit."""

    planned_steps: int | None = None
    """Steps that fit into the time budget at the speed so far; None before the first step."""

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return _given(self.planned_steps, self.epochs * self.steps_per_epoch)

    @property
    def ema_decay(self) -> float:
        """Decay of the moving average of the weights."""
        return _given(self.given_ema_decay, max(0.0, 1 - AVERAGED_RUNS / max(self.total_steps, 1)))

    def planned(self, total_steps: int) -> Self:
        """Return the recipe of a run of `total_steps`."""
        return dataclasses.replace(self, planned_steps=total_steps)

    def statistics_momentum(self, step: int) -> float:
        """Return the least momentum of a new network's batch normalization statistics.

        1 at the first step, because the initial statistics mean nothing. Later a value that makes
        the average span a twentieth of the run.
        """
        if step == 0:
            return 1.0
        return min(AVERAGED_RUNS / self.total_steps, MAX_STATISTICS_MOMENTUM)

    @classmethod
    def of(
        cls, hyperparameters: Hyperparameters, labels: npt.NDArray[np.int64], *, pretrained: bool
    ) -> Self:
        """Choose the settings for the labels (N,) of the training images."""
        epochs = hyperparameters.epochs if hyperparameters.max_minutes is None else MOST_EPOCHS
        if pretrained and hyperparameters.fine_tuning == "none":
            epochs = 0
        is_staged = pretrained and hyperparameters.fine_tuning == "staged"
        size = batch_size(hyperparameters, pretrained=pretrained)
        steps_per_epoch = math.ceil(len(labels) / size)
        is_small = hyperparameters.network == SMALL
        optimizer = hyperparameters.optimizer
        if optimizer is None:
            optimizer = "muon" if is_small and not pretrained else "adamw"
        small, from_scratch, fine_tuned = _LEARNING_RATES[optimizer]
        learning_rate = fine_tuned if pretrained else small if is_small else from_scratch
        balance = _balance(hyperparameters, labels)
        objective = "val_accuracy" if balance == "none" else "val_balanced_accuracy"
        return cls(
            epochs=epochs,
            first_stage_epochs=math.floor(epochs * FIRST_STAGE) if is_staged else 0,
            batch_size=size,
            steps_per_epoch=steps_per_epoch,
            half_size_steps=round(hyperparameters.half_size_steps * epochs * steps_per_epoch),
            learning_rate=_given(hyperparameters.learning_rate, learning_rate),
            optimizer=optimizer,
            weight_decay=_given(hyperparameters.weight_decay, _WEIGHT_DECAYS[optimizer]),
            balance=balance,
            objective=hyperparameters.objective or objective,
            given_ema_decay=hyperparameters.ema_decay,
            label_smoothing=_given(
                hyperparameters.label_smoothing, FINE_TUNING_LABEL_SMOOTHING if pretrained else 0.0
            ),
            max_minutes=hyperparameters.max_minutes,
        )

    def sentences(self, labels: npt.NDArray[np.int64]) -> list[str]:
        """Describe the settings in sentences, given the labels (N,) of the training images."""
        sentences = []
        is_open = self.max_minutes is not None and self.planned_steps is None
        if self.planned_steps == 0:
            sentences.append("max_minutes left no time for steps: only the head was trained")
        elif self.epochs:
            count = f"{self.total_steps} steps"
            if is_open:
                count = f"as many steps as fit into max_minutes={self.max_minutes:g}"
            sentences.append(
                f"{self.optimizer} takes {count} of one cycle, up to a learning rate of "
                f"{self.learning_rate:g}"
            )
        else:
            sentences.append(
                "fine_tuning=none trains the head alone, on features of the images: batch_size, "
                "epochs, optimizer and augmentation have no effect"
            )
        if self.half_size_steps:
            sentences.append(
                f"the first {self.half_size_steps} steps use images at half their size: until "
                "then the validation accuracy, measured at full size, means little"
            )
        if self.first_stage_epochs and self.planned_steps != 0:
            first = f"first {self.first_stage_epochs} of {self.epochs} epochs"
            if self.max_minutes is not None:
                first = "first third of the training time"
            sentences.append(f"in the {first} only the last third of the layers learns")
        if self.epochs and self.ema_decay and not is_open:
            steps = 1 / (1 - self.ema_decay)
            sentences.append(f"the kept weights are averaged over about {steps:.0f} steps")
        if self.balance != "none":
            counts = np.bincount(labels)
            how = (
                "images of rare classes are drawn more often"
                if self.balance == "sampling"
                else "rare classes have a larger weight in the loss"
            )
            sentences.append(f"classes have {counts.min()} to {counts.max()} images: {how}")
        if self.epochs:
            sentences.append(f"the best epoch is the one with the best {self.objective}")
        return sentences


def _given(value: NumberT | None, default: NumberT) -> NumberT:
    return default if value is None else value


def _balance(hyperparameters: Hyperparameters, labels: npt.NDArray[np.int64]) -> Balance:
    """Return how imbalanced classes are balanced."""
    if hyperparameters.class_balance != "auto":
        return hyperparameters.class_balance
    counts = np.bincount(labels)
    return "sampling" if counts.max() >= IMBALANCE * counts.min() else "none"
