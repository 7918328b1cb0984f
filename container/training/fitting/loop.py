"""The training loop: epochs of steps, an evaluation after each, the best weights kept."""

import copy
import itertools
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from container.classifier.errors import UserError
from container.classifier.metric_lines import log_line
from container.debugger.profiler.timeline import CHECKPOINT, EVALUATION, STEP
from container.debugger.recording.debug_session import Observer
from container.networks.network import Classifier, Network
from container.training import recipe
from container.training.data import sampling
from container.training.data.images import ImageSet
from container.training.device import Arithmetic
from container.training.evaluation.evaluation import Evaluation, evaluate, is_better
from container.training.evaluation.progress import Best, Progress
from container.training.fitting import batch_norm, learning_rate, unfreezing
from container.training.fitting.checkpoint import Checkpoints
from container.training.fitting.cluster import Cluster
from container.training.fitting.ema import WeightAverage
from container.training.fitting.optimizer import make_optimizer
from container.training.fitting.step import Model, TrainingStep
from container.training.head import features, frozen_stage
from container.training.hyperparameters import Hyperparameters
from container.training.recipe import Recipe
from container.training.sagemaker.stop import Stop, Stopped
from container.training.schedule import one_cycle

logger = logging.getLogger(__name__)


class Trainer:
    """One training job's loop.

    Every random choice is a function of the seed and the step, so a run that continues from a
    checkpoint makes the choices that the uninterrupted run would have made, and several processes
    those that one would have made.
    """

    def __init__(
        self,
        network: Network,
        training: ImageSet,
        validation: ImageSet,
        hyperparameters: Hyperparameters,
        *,
        pretrained: bool,
        num_classes: int,
        arithmetic: Arithmetic,
        cluster: Cluster,
        observer: Observer | None = None,
    ) -> None:
        """Put the network on its device and make the optimizer; an observer hears of its steps."""
        self.observer = observer or Observer()
        self.network, self.training, self.validation = network, training, validation
        self.hyperparameters = hyperparameters
        self.pretrained, self.num_classes = pretrained, num_classes
        self.arithmetic, self.cluster = arithmetic, cluster
        self.recipe = Recipe.of(hyperparameters, training.labels, pretrained=pretrained)
        self.classifier = arithmetic.place(
            Classifier(network.module, recipe.flips(hyperparameters))
        )
        self.progress = Progress(learning_rate=self.recipe.learning_rate)
        self._statistics = batch_norm.RunningStatistics(network.module)
        self._images_per_second = 0.0
        self._forget()

    def train(self, stop: Stop, checkpoints: Checkpoints) -> None:
        """Train to the last epoch, or until a stop is requested; a checkpoint is left then.

        Raises:
            UserError: the loss is no number any more.
            Stopped: a stop was requested before there was anything to save.
        """
        is_new = not self._continue_from(checkpoints)
        self._start_observing()
        if is_new:
            self._train_head(stop)
            self._find_learning_rate(stop)
            if self.progress.best is not None:
                self._save(checkpoints)
        is_stopped = False
        while not (is_stopped or self._is_finished()):
            with self._learning() as model:
                is_stopped = not self._train_stage(model, stop, checkpoints)
        if is_stopped:
            logger.info("stopped_at_epoch=%d", self.progress.epoch + 1)
        elif self.progress.stopping_rule is not None:
            logger.info("stopped_by_rule=%s", self.progress.stopping_rule)
        elif self.progress.epoch < self.recipe.epochs:
            logger.info("early_stopping_at_epoch=%d", self.progress.epoch)

    def _start_observing(self) -> None:
        """Let the first process's observer see the network from the next step on."""
        if self.cluster.is_first:
            self.observer.start(
                self.network.module,
                self.classifier.normalize,
                total_steps=self.recipe.total_steps,
                first_step=self._step_number,
                epoch=self.progress.epoch,
            )

    @property
    def _step_number(self) -> int:
        """Of the step that comes next."""
        return self.progress.epoch * self.recipe.steps_per_epoch + self.progress.batch

    def keep_best_weights(self) -> Best | None:
        """Load the kept epoch's weights into the classifier; before the first, leave them."""
        if self.progress.best is not None:
            self.classifier.load_state_dict(self.progress.best.weights)
        return self.progress.best

    def _forget(self) -> None:
        """Begin with the optimizer and the moving average."""
        self.optimizer = make_optimizer(
            self.network, self.hyperparameters, pretrained=self.pretrained
        )
        self.average = WeightAverage(self.classifier, self.recipe.ema_decay)
        self.step = TrainingStep(
            self.optimizer,
            self.training,
            self.hyperparameters,
            arithmetic=self.arithmetic,
            cluster=self.cluster,
            half_size_steps=self.recipe.half_size_steps,
            class_weights=self._class_weights() if self.recipe.balance == "weights" else None,
        )

    def _class_weights(self) -> npt.NDArray[np.float32]:
        return sampling.class_weights(self.training.labels, self.num_classes)

    def _train_head(self, stop: Stop) -> None:
        """Train a pretrained network's new head while all else is frozen, and judge it."""
        if not self.pretrained:
            return
        training, validation = (
            # Of several processes none may wait for the cache while others ask it for a stop.
            features.find_or_compute(self.network, images, self.arithmetic, stop)
            if self.cluster.world_size == 1
            else features.compute(self.network, images, self.arithmetic, self.cluster.agreed(stop))
            for images in (self.training, self.validation)
        )
        frozen_stage.train(
            self.network,
            training,
            validation,
            self.hyperparameters,
            objective=self.recipe.objective,
            class_weights=None if self.recipe.balance == "none" else self._class_weights(),
            device=self.arithmetic.device,
            stop=self.cluster.agreed(stop),
        )
        self._forget()
        evaluation = self._evaluate(stop)
        self._tell_of(evaluation)
        if self.cluster.is_first:
            logger.info("%s", log_line({"epoch": 0, **evaluation.metrics()}))
        self._keep_if_better(evaluation)

    def _find_learning_rate(self, stop: Stop) -> None:
        """Search for the peak of the schedule where that was asked for."""
        if not self.hyperparameters.find_learning_rate or self.recipe.epochs == 0:
            return
        batches = itertools.chain.from_iterable(map(self._batches, itertools.count()))
        before = copy.deepcopy(self.classifier.state_dict())
        with self._learning() as model:

            def loss_at(number: int, rate: float) -> float:
                self.cluster.agreed(stop).check()
                totals = self.cluster.total(self.step(model, number, next(batches), rate))
                return float(totals[0] / totals[2])

            self._set_to_training()
            self.progress.learning_rate = learning_rate.search(loss_at)
        self.classifier.load_state_dict(before)
        self._forget()
        if self.cluster.is_first:
            logger.info("found_learning_rate=%.3g", self.progress.learning_rate)

    @contextmanager
    def _learning(self) -> Iterator[Model]:
        """Yield what to call in training, with those layers learning that do in this epoch."""
        if self.recipe.first_stage_epochs:
            unfreezing.freeze_first_layers(self.network, frozen=self._is_first_stage)
        with self.cluster.learning(self.classifier) as model:
            yield torch.compile(model) if self.hyperparameters.compile else model

    @property
    def _is_first_stage(self) -> bool:
        return self.progress.epoch < self.recipe.first_stage_epochs

    def _train_stage(self, model: Model, stop: Stop, checkpoints: Checkpoints) -> bool:
        """Train until other layers learn or the end; return False when a stop came in between."""
        is_first_stage = self._is_first_stage
        while self._is_first_stage is is_first_stage and not self._is_finished():
            finished = self._train_one_epoch(model, stop, checkpoints) and self._finish_epoch(stop)
            # An epoch can take less than a second, and its checkpoint longer. After the last one
            # comes what can take minutes: a job that is broken off there need not train again.
            if not finished or self._is_finished() or checkpoints.is_due():
                self._save(checkpoints)
            if not finished:
                return False
        return True

    def _train_one_epoch(self, model: Model, stop: Stop, checkpoints: Checkpoints) -> bool:
        """Make the epoch's remaining steps; return False when a stop came in between."""
        progress = self.progress
        self._set_to_training()
        totals = self._own_totals()
        start, images_before = time.monotonic(), progress.totals[2]
        batches = self._batches(progress.epoch)
        bar = tqdm(
            range(progress.batch, len(batches)),
            desc=f"epoch {progress.epoch + 1}",
            unit=" steps",
            leave=False,
            disable=None if self.cluster.is_first else True,
        )
        for progress.batch in bar:
            is_stopped, is_due = self.cluster.any_rank(stop.requested, checkpoints.is_due())
            if is_stopped or is_due:
                progress.totals = tuple(self.cluster.total(totals).tolist())
                totals = self._own_totals()
            if is_stopped:
                return False
            if is_due:
                self._save(checkpoints)
            number = self._step_number
            rate = progress.learning_rate * one_cycle(number, self.recipe.total_steps)
            if not self.pretrained:
                self._statistics.set_momentum(self.recipe.statistics_momentum(number))
            self.observer.begin_step(number, progress.epoch)
            with self.observer.phase(STEP):
                totals += self.step(model, number, batches[progress.batch], rate, self.observer)
            self.average.update(self.classifier, number)
        progress.batch = len(batches)
        # The only wait for the device in the epoch.
        progress.totals = tuple(self.cluster.total(totals).tolist())
        seconds = time.monotonic() - start
        self._images_per_second = (progress.totals[2] - images_before) / seconds
        return True

    def _set_to_training(self) -> None:
        self.classifier.train()
        unfreezing.hold_statistics(self.network, pretrained=self.pretrained)

    def _own_totals(self) -> Tensor:
        """Return what was counted so far; what all processes counted, the first one holds."""
        totals = torch.tensor(
            self.progress.totals, dtype=torch.float64, device=self.arithmetic.device
        )
        return totals if self.cluster.is_first else totals.zero_()

    def _finish_epoch(self, stop: Stop) -> bool:
        """Evaluate and keep the best; return False when a stop came in between."""
        progress = self.progress
        loss, right, images = progress.totals
        self._check_finite("training", loss)
        try:
            evaluation = self._evaluate(stop)
        except Stopped:
            return False
        # The last step's weights are in this one only.
        self._check_finite("validation", evaluation.loss)
        progress.epoch, progress.batch, progress.totals = progress.epoch + 1, 0, (0.0, 0.0, 0.0)
        metrics = {
            "train_loss": loss / images,
            "train_accuracy": right / images,
            **evaluation.metrics(),
            "images_per_second": self._images_per_second,
        }
        self._tell_of(evaluation, loss / images)
        progress.history.append(metrics)
        if self.cluster.is_first:
            logger.info("%s", log_line({"epoch": progress.epoch, **metrics}))
        self._keep_if_better(evaluation)
        return True

    def _tell_of(self, evaluation: Evaluation, train_loss: float | None = None) -> None:
        number = self.progress.epoch * self.recipe.steps_per_epoch
        self.observer.evaluation(
            number, self.progress.epoch, evaluation.loss, evaluation.confusion, train_loss
        )
        # Another process's observer sees nothing.
        rule = self.cluster.from_first(self.observer.stopping_rule)
        self.progress.stopping_rule = None if rule is None else str(rule)

    def _evaluate(self, stop: Stop) -> Evaluation:
        with self.observer.phase(EVALUATION):
            return evaluate(
                self.average.classifier,
                self.validation,
                self.arithmetic,
                self.num_classes,
                self.cluster.agreed(stop),
            )

    def _keep_if_better(self, evaluation: Evaluation) -> None:
        best, metrics = self.progress.best, evaluation.metrics()
        if best is None or is_better(self.recipe.objective, metrics, best.evaluation.metrics()):
            state = self.average.classifier.state_dict()
            weights = {name: value.detach().clone() for name, value in state.items()}
            self.progress.best = Best(self.progress.epoch, weights, evaluation)

    def _is_finished(self) -> bool:
        """Tell whether all epochs are done, or too many since the best one."""
        progress, patience = self.progress, self.hyperparameters.early_stopping_patience
        if progress.epoch >= self.recipe.epochs:
            return True
        if progress.stopping_rule is not None:
            return True
        # An epoch that a stop interrupted has been begun, and so is ended.
        if patience is None or progress.best is None or progress.batch > 0:
            return False
        # What a network answers to images of a size that it doesn't know yet says little.
        if progress.epoch * self.recipe.steps_per_epoch < self.recipe.half_size_steps:
            return False
        # The first process decides: a rounding of one's own must not leave the others alone.
        return bool(self.cluster.from_first(progress.epoch - progress.best.epoch >= patience))

    def _check_finite(self, name: str, loss: float) -> None:
        if not math.isfinite(loss):
            message = (
                f"the {name} loss is {loss} in epoch {self.progress.epoch + 1}: lower "
                f"learning_rate (its peak is {self.progress.learning_rate:g})"
            )
            raise UserError(message)

    def _batches(self, epoch: int) -> list[npt.NDArray[np.int64]]:
        return sampling.batches(
            self.training.labels,
            self.hyperparameters.batch_size,
            np.random.default_rng((self.hyperparameters.seed, epoch)),
            balanced=self.recipe.balance == "sampling",
        )

    def _save(self, checkpoints: Checkpoints) -> None:
        if self.cluster.is_first:
            state = {
                "classifier": self.classifier.state_dict(),
                "average": self.average.classifier.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "progress": self.progress.to_state(),
            }
            with self.observer.phase(CHECKPOINT):
                checkpoints.save(self._step_number, state)

    def _continue_from(self, checkpoints: Checkpoints) -> bool:
        own = checkpoints.load_newest() if self.cluster.is_first else None
        state = self.cluster.from_first(own)
        if not isinstance(state, dict):
            return False
        self.classifier.load_state_dict(state["classifier"])
        self.average.classifier.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress.from_state(state["progress"])
        # What ended it then may be asked for no more.
        if not self.cluster.from_first(self.observer.may_stop(self.progress.stopping_rule)):
            self.progress.stopping_rule = None
        return True
