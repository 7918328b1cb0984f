"""The training loop: epochs of steps, an evaluation after each, the best weights kept."""

import logging
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from container.classifier.metric_lines import log_line
from container.debugger.profiler.timeline import CHECKPOINT, EVALUATION
from container.debugger.recording.debug_session import Observer
from container.training.device import Arithmetic
from container.training.evaluation.evaluation import Evaluation, evaluate
from container.training.evaluation.progress import Progress
from container.training.fitting import measured_arithmetic, measured_image_size, measured_threads
from container.training.fitting.checkpoint import Checkpoints
from container.training.fitting.cluster import Cluster
from container.training.fitting.learner import Learner
from container.training.fitting.measured_threads import ComputeThreads
from container.training.fitting.step import Model
from container.training.fitting.task import Task, TrainingResult
from container.training.fitting.time_budget import TimeBudget
from container.training.progress_bar import ProgressBar
from container.training.recipe import FIRST_STAGE, Recipe
from container.training.sagemaker.stop import Stop, Stopped
from container.training.schedule import one_cycle_at, phase

logger = logging.getLogger(__name__)


class Trainer:
    """The loop over the epochs of one job.

    Every random choice is a function of the seed and the step number. A job that continues from a
    checkpoint therefore makes the choices of an uninterrupted one, and several ranks make those of
    a single process.
    """

    def __init__(
        self,
        task: Task,
        *,
        arithmetic: Arithmetic,
        cluster: Cluster,
        threads: ComputeThreads | None = None,
        observer: Observer | None = None,
        on_metrics: Callable[[Mapping[str, float], int], None] = lambda _metrics, _epoch: None,
        budget: TimeBudget | None = None,
    ) -> None:
        """Create the learner; the observer receives all steps and evaluations.

        `on_metrics` receives the metrics of every epoch and its number, on the first rank.
        """
        self.task, self.arithmetic, self.cluster = task, arithmetic, cluster
        self.threads = threads or ComputeThreads(is_measured=False)
        self.observer = observer or Observer()
        self._on_metrics = on_metrics
        self.budget = budget or TimeBudget()
        settings, labels = task.hyperparameters, task.training.labels
        recipe = Recipe.of(settings, labels, pretrained=task.is_pretrained)
        self.learner = Learner(task, recipe, arithmetic, cluster)
        self.progress = Progress()

    def train(self, stop: Stop, checkpoints: Checkpoints) -> None:
        """Train to the last epoch or until a stop is requested; save a checkpoint in both cases.

        Raises:
            UserError: the loss is not finite.
            Stopped: a stop was requested before the first step.
        """
        is_new, agreed = not self._restore(checkpoints), self.cluster.agreed(stop)
        self.observer.start(
            self.task.network.module,
            self.learner.classifier.normalize,
            # At a step a second, if only the time is known.
            total_steps=int(min(self.recipe.total_steps, self.budget.limit_seconds)),
            first_step=self._step_number,
            epoch=self.progress.epoch,
        )
        if is_new:
            if self.task.is_pretrained:
                self.learner.train_head(agreed)
                self._report(self._evaluate(stop), {})
            if self.progress.best is not None:
                self._save(checkpoints)
        try:
            while not self._is_finished():
                self._train_stage(stop, checkpoints)
        except Stopped:
            self._save(checkpoints)
            logger.info("stopped_at_epoch=%d", self.progress.epoch + 1)
            return
        if self.progress.stopping_rule is not None:
            logger.info("stopped_by_rule=%s", self.progress.stopping_rule)
        elif self.budget.fraction == 1:
            logger.info("trained epochs=%d steps=%d", self.progress.epoch, self.recipe.total_steps)
        elif self.progress.epoch < self.recipe.epochs:
            logger.info("early_stopping_at_epoch=%d", self.progress.epoch)

    @property
    def recipe(self) -> Recipe:
        """The settings of the run."""
        return self.learner.recipe

    def result(self) -> TrainingResult:
        """Load the best epoch's weights and return them with the history."""
        best, classifier = self.progress.best, self.learner.classifier
        if best is not None:
            classifier.load_state_dict(best.weights)
        return TrainingResult(
            classifier=classifier,
            best=best,
            history=self.progress.history,
            recipe=self.recipe,
            arithmetic=self.arithmetic,
        )

    @property
    def _step_number(self) -> int:
        """The number of the next step."""
        return self.progress.epoch * self.recipe.steps_per_epoch + self.progress.batch

    @property
    def _is_first_stage(self) -> bool:
        if self.budget.is_limited:
            # The number of epochs is not known.
            return self.recipe.first_stage_epochs > 0 and self.budget.fraction < FIRST_STAGE
        return self.progress.epoch < self.recipe.first_stage_epochs

    def _train_stage(self, stop: Stop, checkpoints: Checkpoints) -> None:
        """Train until the end, or until the first layers begin to learn."""
        is_first_stage = self._is_first_stage
        with self.learner.training(is_first_stage=is_first_stage) as model:
            while self._is_first_stage is is_first_stage and not self._is_finished():
                images_per_second = self._train_epoch(model, stop, checkpoints)
                progress, is_over = self.progress, self.budget.fraction == 1
                # With a time budget the stage, or the time, can end within an epoch.
                if progress.batch == self.recipe.steps_per_epoch or (is_over and progress.batch):
                    self._finish_epoch(stop, images_per_second)
                # Not after every epoch, which can take less time than its checkpoint. After the
                # last one, because exporting the model takes minutes and can be interrupted.
                if self._is_finished() or checkpoints.is_due():
                    self._save(checkpoints)

    def _train_epoch(self, model: Model, stop: Stop, checkpoints: Checkpoints) -> float:
        """Make the remaining steps of the epoch; return the images per second."""
        progress, is_first_stage = self.progress, self._is_first_stage
        self.learner.set_to_training()
        totals = self._own_totals()
        start, images_before = time.monotonic(), progress.totals[2]
        batches = self.learner.batches(progress.epoch)
        with ProgressBar(
            f"epoch {progress.epoch + 1}",
            sum(map(len, batches)),
            done=sum(map(len, batches[: progress.batch])),
            is_shown=self.cluster.is_first,
            note=self.budget.sentence,
        ) as bar:
            while progress.batch < len(batches) and self._is_first_stage is is_first_stage:
                is_stopped, is_due = self.cluster.any_rank(stop.requested, checkpoints.is_due())
                if is_stopped or is_due:
                    progress.totals = tuple(self.cluster.total(totals).tolist())
                    totals = self._own_totals()
                if is_stopped:
                    raise Stopped
                if is_due:
                    self._save(checkpoints)
                if (fraction := self._advance()) == 1:
                    break
                number = self._step_number
                rate = self.recipe.learning_rate * one_cycle_at(fraction)
                self.observer.begin_step(number, progress.epoch)
                totals += self.learner.train_step(
                    model, number, batches[progress.batch], rate, self.observer
                )
                bar.update(len(batches[progress.batch]))
                progress.batch += 1
        # The only wait for the device in the epoch.
        progress.totals = tuple(self.cluster.total(totals).tolist())
        return (progress.totals[2] - images_before) / (time.monotonic() - start)

    def _advance(self) -> float:
        """Return the position in the schedule at the next step; 1 if there is no time for it."""
        number = self._step_number
        if not self.budget.is_limited:
            return self.budget.position(number + 1, self.recipe.total_steps)
        # The clock of one rank decides, else the ranks would wait for each other.
        if self.cluster.is_first:
            # From scratch there is nothing to keep before the first step.
            self.budget.advance(is_required=number == 0 and self.progress.best is None)
        fraction = self.cluster.from_first(self.budget.fraction)
        self.budget.fraction = fraction
        self.learner.plan(round(number / fraction))
        return fraction

    def _own_totals(self) -> Tensor:
        """Return this rank's part of the totals: all of those so far on the first, else zeros."""
        totals, device = self.progress.totals, self.arithmetic.device
        own = torch.tensor(totals, dtype=torch.float64, device=device)
        return own if self.cluster.is_first else own.zero_()

    def _finish_epoch(self, stop: Stop, images_per_second: float) -> None:
        """Evaluate, and keep the weights if they are the best so far."""
        progress = self.progress
        loss, correct, images = progress.totals
        progress.check_finite("training", loss, self.recipe.learning_rate)
        evaluation = self._evaluate(stop)
        # The training loss does not include the weights of the last step.
        progress.check_finite("validation", evaluation.loss, self.recipe.learning_rate)
        progress.epoch, progress.batch, progress.totals = progress.epoch + 1, 0, (0.0, 0.0, 0.0)
        metrics = {
            "train_loss": loss / images,
            "train_accuracy": correct / images,
            **evaluation.metrics(),
            "images_per_second": images_per_second,
        }
        progress.history.append(metrics)
        self._report(evaluation, metrics)

    def _evaluate(self, stop: Stop) -> Evaluation:
        with self.observer.phase(EVALUATION), self.budget.evaluation():
            return evaluate(
                self.learner.average.classifier,
                self.task.validation,
                self.arithmetic,
                len(self.task.class_names),
                self.cluster.agreed(stop),
            )

    def _report(self, evaluation: Evaluation, metrics: dict[str, float]) -> None:
        """Pass an evaluation to the observer, the log and the choice of the best epoch."""
        progress = self.progress
        self.observer.evaluation(
            self._step_number,
            progress.epoch,
            evaluation.loss,
            evaluation.confusion,
            metrics.get("train_loss"),
            learning_rate=phase(self.budget.position(self._step_number, self.recipe.total_steps)),
        )
        # Only the observer of the first rank evaluates rules.
        progress.stopping_rule = self.cluster.from_first(self.observer.stopping_rule)
        if self.cluster.is_first:
            found = {**metrics, **evaluation.metrics()}
            logger.info("%s", log_line({"epoch": progress.epoch, **found}))
            self._on_metrics(found, progress.epoch)
            if self.budget.is_limited:
                logger.info("max_minutes: %s", self.budget.sentence())
        progress.keep_if_better(evaluation, self.learner.average.classifier, self.recipe.objective)

    def _is_finished(self) -> bool:
        """Return whether all epochs are done or a rule or early stopping ends the training."""
        progress, limit = self.progress, self.task.hyperparameters.early_stopping_patience
        # A part of an epoch that a stop has interrupted is evaluated.
        is_over = self.budget.fraction == 1 and progress.batch == 0
        if is_over or progress.epoch >= self.recipe.epochs or progress.stopping_rule is not None:
            return True
        # An epoch that a stop has interrupted is completed.
        if limit is None or progress.best is None or progress.batch > 0:
            return False
        # Evaluations at a size that the network has not been trained at yet do not count.
        if progress.epoch * self.recipe.steps_per_epoch < self.recipe.half_size_steps:
            return False
        # The first rank decides: with different rounding the ranks would wait for each other.
        return self.cluster.from_first(progress.epoch - progress.best.epoch >= limit)

    def _save(self, checkpoints: Checkpoints) -> None:
        # Before the checkpoint: a job that continues from it has its number of threads.
        self.threads.choose()
        if self.cluster.is_first:
            state = {
                **self.learner.state_dict(),
                "progress": self.progress.to_state(),
                "budget": self.budget.state_dict(),
                measured_arithmetic.STATE: str(self.arithmetic),
                measured_image_size.STATE: self.task.preprocessing.image_size,
                measured_threads.STATE: torch.get_num_threads(),
            }
            with self.observer.phase(CHECKPOINT):
                checkpoints.save(self._step_number, state)

    def _restore(self, checkpoints: Checkpoints) -> bool:
        """Continue from the newest checkpoint, if there is one; return whether there is."""
        own = checkpoints.load_newest() if self.cluster.is_first else None
        state = self.cluster.from_first(own)
        if state is None:
            return False
        self.learner.load_state_dict(state)
        self.progress = Progress.from_state(state["progress"])
        if self.budget.is_limited:
            self.budget.load_state_dict(state["budget"])
            if self.budget.fraction:
                self.learner.plan(round(self._step_number / self.budget.fraction))
        # The rule that ended the earlier job may no longer be one that ends this one.
        if not self.cluster.from_first(self.observer.may_stop(self.progress.stopping_rule)):
            self.progress.stopping_rule = None
        return True
