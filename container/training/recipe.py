"""What a job's hyperparameters mean for its data and on this machine."""

import math
import os
import shutil
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from container.classifier.errors import UserError
from container.networks.network import SMALL
from container.training.data.sampling import Balance, balance_of
from container.training.fitting.optimizer import optimizer_name, peak_learning_rate
from container.training.fitting.unfreezing import first_stage_epochs
from container.training.hyperparameters import Hyperparameters

SMALL_IMAGE_SIZE, IMAGENET_IMAGE_SIZE = 128, 224

# The moving average of the weights looks back over a twentieth of the run.
AVERAGED_RUNS = 20

# Batch normalization's statistics average over a few batches at least.
MOST_MOMENTUM = 0.4


def wants_download(hyperparameters: Hyperparameters) -> bool:
    """Tell whether a job without a `weights` channel starts from torchvision's weights."""
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
        UserError: it is asked for, and no flip is allowed.
    """
    if not hyperparameters.test_time_augmentation:
        return []
    allowed = []
    if hyperparameters.horizontal_flip:
        allowed.append((3,))
    if hyperparameters.vertical_flip:
        allowed.append((2,))
    if not allowed:
        message = (
            "test_time_augmentation averages over flips, and none is allowed: set "
            "horizontal_flip=true or vertical_flip=true where they change no label"
        )
        raise UserError(message)
    return [*allowed, *([(2, 3)] if len(allowed) > 1 else [])]


def check_compiler(hyperparameters: Hyperparameters) -> None:
    """Make sure that there is a compiler where one is needed.

    Raises:
        UserError: there is none.
    """
    if hyperparameters.compile and shutil.which(os.environ.get("CXX", "g++")) is None:
        message = "compile=true needs a C++ compiler, and there is no g++: install it, or leave it"
        raise UserError(message)


def smallest_share(images: int, batch_size: int, processes: int) -> int:
    """Return how many images of a batch the process with the fewest gets.

    Raises:
        UserError: none.
    """
    batches = math.ceil(images / batch_size)
    share = images // batches // processes
    if share == 0:
        message = (
            f"{images} images in batches of {batch_size} leave some of the {processes} "
            "processes without any: use a larger batch_size or fewer hosts and GPUs"
        )
        raise UserError(message)
    return share


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How a network learns: hyperparameters, and what those left open become for the data."""

    epochs: int
    """Of steps; none where the backbone of a pretrained network stays as it is."""

    first_stage_epochs: int
    """In how many of them only the last layers learn."""

    steps_per_epoch: int
    half_size_steps: int
    """How many of the first see images at half their size (fast.ai's progressive resizing)."""

    learning_rate: float
    """Peak of the schedule, unless a search finds another."""

    optimizer: str
    balance: Balance
    objective: str
    ema_decay: float

    @property
    def total_steps(self) -> int:
        """Of the whole run."""
        return self.epochs * self.steps_per_epoch

    def statistics_momentum(self, step: int) -> float:
        """Return how much of a batch's statistics a new network takes in at least.

        The first batch's as they are, for those before say nothing; later so much that what is
        older than a twentieth of the run is forgotten.
        """
        if step == 0:
            return 1.0
        return min(AVERAGED_RUNS / self.total_steps, MOST_MOMENTUM)

    @classmethod
    def of(
        cls, hyperparameters: Hyperparameters, labels: npt.NDArray[np.int64], *, pretrained: bool
    ) -> Self:
        """Decide, given the labels (N,) of the training images."""
        is_frozen = pretrained and hyperparameters.fine_tuning == "none"
        epochs = 0 if is_frozen else hyperparameters.epochs
        is_staged = pretrained and hyperparameters.fine_tuning == "staged"
        steps_per_epoch = math.ceil(len(labels) / hyperparameters.batch_size)
        balance = balance_of(hyperparameters, labels)
        objective = "val_accuracy" if balance == "none" else "val_balanced_accuracy"
        return cls(
            epochs=epochs,
            first_stage_epochs=first_stage_epochs(epochs) if is_staged else 0,
            steps_per_epoch=steps_per_epoch,
            half_size_steps=round(hyperparameters.half_size_steps * epochs * steps_per_epoch),
            learning_rate=peak_learning_rate(hyperparameters, pretrained=pretrained),
            optimizer=optimizer_name(hyperparameters, pretrained=pretrained),
            balance=balance,
            objective=hyperparameters.objective or objective,
            ema_decay=_ema_decay(hyperparameters, epochs * steps_per_epoch),
        )

    def sentences(self, labels: npt.NDArray[np.int64]) -> list[str]:
        """Say what was decided, given the labels (N,) of the training images."""
        said = []
        if self.epochs:
            said.append(
                f"{self.optimizer} takes {self.total_steps} steps of one cycle, up to a learning "
                f"rate of {self.learning_rate:g}"
            )
        if self.half_size_steps:
            said.append(
                f"in the first {self.half_size_steps} steps images have half their size: until "
                "then the accuracy, which is of whole ones, says little"
            )
        if self.first_stage_epochs:
            said.append(
                f"in the first {self.first_stage_epochs} of {self.epochs} epochs only the last "
                "third of the layers learns"
            )
        if self.epochs and self.ema_decay:
            steps = 1 / (1 - self.ema_decay)
            said.append(f"the weights that are kept are averaged over about {steps:.0f} steps")
        if self.balance != "none":
            counts = np.bincount(labels)
            how = "are drawn more often" if self.balance == "sampling" else "weigh more"
            said.append(
                f"classes have {counts.min()} to {counts.max()} images: those of the rare ones "
                f"{how}"
            )
        said.append(f"the best epoch is the one with the best {self.objective}")
        return said


def _ema_decay(hyperparameters: Hyperparameters, total_steps: int) -> float:
    if hyperparameters.ema_decay is not None:
        return hyperparameters.ema_decay
    return max(0.0, 1 - AVERAGED_RUNS / max(total_steps, 1))
