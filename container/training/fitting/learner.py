"""What training changes: a classifier, its optimizer and the moving average of its weights."""

import copy
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from container.debugger.profiler.timeline import STEP
from container.debugger.recording.debug_session import Observer
from container.networks.network import Classifier
from container.training.data import sampling
from container.training.device import Arithmetic
from container.training.fitting import unfreezing
from container.training.fitting.batch_norm import RunningStatistics
from container.training.fitting.cluster import Cluster
from container.training.fitting.optimizer import make_optimizer
from container.training.fitting.step import Model, TrainingStep
from container.training.fitting.task import Task
from container.training.head import features, frozen_stage
from container.training.recipe import Recipe, flips
from container.training.sagemaker.stop import Stop

logger = logging.getLogger(__name__)


class WeightAverage:
    """An exponential moving average of weights and statistics (Polyak and Juditsky 1992)."""

    def __init__(self, classifier: Classifier, decay: float) -> None:
        """Start from the present weights; with a decay of 0 the average is the classifier."""
        self.decay = decay
        self.classifier = copy.deepcopy(classifier).requires_grad_(False) if decay else classifier

    @torch.no_grad()
    def update(self, classifier: Classifier, step: int) -> None:
        """Add the weights after `step`, counted from 0, to the average."""
        if self.classifier is classifier:
            return
        # A smaller decay at first: the weights of the first steps are far from the later ones.
        decay = min(self.decay, (1 + step) / (10 + step))
        averages, values = self.classifier.state_dict(), classifier.state_dict()
        real = [name for name, value in values.items() if value.is_floating_point()]
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average([averages[name] for name in real], [values[name] for name in real], None)
        for name in values.keys() - real:
            averages[name].copy_(values[name])


class Learner:
    """A classifier and everything that a training step updates along with it."""

    def __init__(
        self, task: Task, recipe: Recipe, arithmetic: Arithmetic, cluster: Cluster
    ) -> None:
        """Move the network to its device and create the optimizer."""
        self.task, self.recipe = task, recipe
        self.arithmetic, self.cluster = arithmetic, cluster
        self.classifier = arithmetic.place(
            Classifier(task.network.module, flips(task.hyperparameters))
        )
        self._statistics = RunningStatistics(task.network.module)
        self.reset_optimizer()

    @property
    def class_weights(self) -> npt.NDArray[np.float32]:
        """Weights (C,) of the classes in the loss, which compensate for imbalanced classes."""
        return sampling.class_weights(self.task.training.labels, len(self.task.class_names))

    def reset_optimizer(self) -> None:
        """Create a new optimizer, and start the moving average from the present weights."""
        self.optimizer = make_optimizer(
            self.task.network,
            self.recipe.optimizer,
            self.recipe.weight_decay,
            pretrained=self.task.is_pretrained,
        )
        self.average = WeightAverage(self.classifier, self.recipe.ema_decay)
        self.step = TrainingStep(
            self.optimizer,
            self.task.training,
            replace(self.task.hyperparameters, label_smoothing=self.recipe.label_smoothing),
            arithmetic=self.arithmetic,
            cluster=self.cluster,
            half_size_steps=self.recipe.half_size_steps,
            class_weights=self.class_weights if self.recipe.balance == "weights" else None,
        )

    def plan(self, total_steps: int) -> None:
        """Follow the recipe of a run of `total_steps`."""
        self.recipe = self.recipe.planned(total_steps)
        self.average.decay = self.recipe.ema_decay

    def batches(self, epoch: int) -> list[npt.NDArray[np.int64]]:
        """Return the image indices of each batch of an epoch."""
        return sampling.batches(
            self.task.training.labels,
            self.recipe.batch_size,
            np.random.default_rng((self.task.hyperparameters.seed, epoch)),
            balanced=self.recipe.balance == "sampling",
        )

    def train_head(self, stop: Stop) -> None:
        """Train a pretrained network's new head with the backbone frozen.

        Raises:
            Stopped: a stop was requested.
        """
        # With several ranks none may wait for the cache's lock: the others may be in a collective
        # meanwhile, in which they agree on a stop.
        compute = features.compute if self.cluster.world_size > 1 else features.find_or_compute
        training, validation = (
            compute(self.task.network, images, self.arithmetic, stop)
            for images in (self.task.training, self.task.validation)
        )
        frozen_stage.train(
            self.task.network,
            training,
            validation,
            self.task.hyperparameters,
            objective=self.recipe.objective,
            class_weights=None if self.recipe.balance == "none" else self.class_weights,
            device=self.arithmetic.device,
            stop=stop,
        )
        logger.info("epoch 0 is this head on the frozen network, before any fine-tuning")
        self.reset_optimizer()

    @contextmanager
    def training(self, *, is_first_stage: bool) -> Iterator[Model]:
        """Yield the model for training steps; in the first stage only its last layers learn."""
        if self.recipe.first_stage_epochs:
            unfreezing.freeze_first_layers(self.task.network, frozen=is_first_stage)
        with self.cluster.learning(self.classifier) as model:
            yield torch.compile(model) if self.task.hyperparameters.compile else model

    def set_to_training(self) -> None:
        """Put all layers in training mode, except the batch normalization of frozen ones."""
        self.classifier.train()
        unfreezing.hold_statistics(self.task.network, pretrained=self.task.is_pretrained)

    def train_step(
        self,
        model: Model,
        number: int,
        batch: npt.NDArray[np.int64],
        learning_rate: float,
        observer: Observer,
    ) -> Tensor:
        """Make one step of the schedule; return the totals of `TrainingStep`."""
        if not self.task.is_pretrained:
            self._statistics.set_momentum(self.recipe.statistics_momentum(number))
        with observer.phase(STEP):
            totals = self.step(model, number, batch, learning_rate, observer)
        self.average.update(self.classifier, number)
        return totals

    def state_dict(self) -> dict[str, object]:
        """Return what a checkpoint holds."""
        return {
            "classifier": self.classifier.state_dict(),
            "average": self.average.classifier.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.classifier.load_state_dict(state["classifier"])
        self.average.classifier.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
