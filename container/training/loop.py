"""The training loop: epochs of steps, an evaluation after each, the best weights kept."""

import logging
import math
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from tqdm import tqdm

from classifier.errors import UserError
from training import checkpoint
from training.augmentation import Augmentation
from training.cluster import Cluster
from training.evaluation import evaluate, to_images
from training.hyperparameters import Hyperparameters
from training.metrics import is_better, log_line
from training.network import Classifier, Network
from training.pictures import Pictures
from training.progress import Best, Progress
from training.recipe import Arithmetic, make_optimizer, one_cycle, peak_learning_rate
from training.stop import StopRequest

logger = logging.getLogger(__name__)


class Trainer:
    """One training job's loop.

    Every random choice is a function of the seed and the step, so a run that goes on from a
    checkpoint makes the choices that the uninterrupted run would have made.
    """

    def __init__(
        self,
        network: Network,
        training: Pictures,
        validation: Pictures,
        hyperparameters: Hyperparameters,
        *,
        pretrained: bool,
        num_classes: int,
        arithmetic: Arithmetic,
        cluster: Cluster,
    ) -> None:
        """Put the network on its device and make the optimizer."""
        self.training, self.validation = training, validation
        self.hyperparameters = hyperparameters
        self.num_classes = num_classes
        self.arithmetic, self.cluster = arithmetic, cluster
        self.classifier = (
            Classifier(network.module).to(arithmetic.device).to(memory_format=torch.channels_last)
        )
        # A pretrained network's new head has everything to learn, the rest of it little.
        self.optimizer: Optimizer = make_optimizer(
            network.module, network.heads if pretrained else (), hyperparameters
        )
        self.peak = peak_learning_rate(hyperparameters, pretrained=pretrained)
        self.augment = Augmentation(
            geometry_and_light=hyperparameters.augment,
            horizontal_flip=hyperparameters.horizontal_flip,
            vertical_flip=hyperparameters.vertical_flip,
        )
        self.batches_per_epoch = math.ceil(len(training) / hyperparameters.batch_size)
        self.progress = Progress()
        self._images_per_second = 0.0
        self.model: nn.Module = self.classifier

    @property
    def total_steps(self) -> int:
        """Of the whole run."""
        return self.hyperparameters.epochs * self.batches_per_epoch

    def train(self, stop: StopRequest, checkpoints: Path, fingerprint: str) -> None:
        """Train to the last epoch, or until a stop is requested; a checkpoint is left then.

        Raises:
            UserError: the loss is no number any more.
        """
        self._continue_from(checkpoints, fingerprint)
        with self.cluster.learning(self.classifier) as self.model:
            self._train_epochs(stop, checkpoints, fingerprint)
        self._log_best()

    def _train_epochs(self, stop: StopRequest, checkpoints: Path, fingerprint: str) -> None:
        # An epoch can take less than a second, and its checkpoint longer.
        interval = self.hyperparameters.checkpoint_interval_seconds
        last_checkpoint = time.monotonic()
        while self.progress.epoch < self.hyperparameters.epochs:
            finished = self._train_one_epoch(stop) and self._finish_epoch(stop)
            now = time.monotonic()
            if not finished or now - last_checkpoint >= interval:
                self._save(checkpoints, fingerprint)
                last_checkpoint = now
            if not finished:
                logger.info("stopped_at_epoch=%d", self.progress.epoch + 1)
                break

    def keep_best_weights(self) -> Best | None:
        """Load the kept epoch's weights into the classifier; before the first, leave them."""
        if self.progress.best is not None:
            self.classifier.load_state_dict(self.progress.best.weights)
        return self.progress.best

    def _train_one_epoch(self, stop: StopRequest) -> bool:
        """Make the epoch's remaining steps; return False when a stop came in between."""
        self.model.train()
        progress, device = self.progress, self.arithmetic.device
        totals = torch.tensor(progress.totals, dtype=torch.float64, device=device)
        # What an interrupted epoch counted, over all processes, counts once.
        if not self.cluster.is_first:
            totals.zero_()
        start, pictures_before = time.monotonic(), progress.totals[2]
        batches = self._batches(progress.epoch)
        bar = tqdm(
            range(progress.batch, len(batches)),
            desc=f"epoch {progress.epoch + 1}",
            unit=" steps",
            leave=False,
            disable=None if self.cluster.is_first else True,
        )
        for progress.batch in bar:
            if self._stop_everywhere(stop):
                progress.totals = tuple(self.cluster.total(totals).tolist())
                return False
            totals += self._step(batches[progress.batch])
        progress.batch = len(batches)
        # The only wait for the device in the epoch.
        progress.totals = tuple(self.cluster.total(totals).tolist())
        seconds = time.monotonic() - start
        self._images_per_second = (progress.totals[2] - pictures_before) / seconds
        return True

    def _step(self, batch: npt.NDArray[np.int64]) -> Tensor:
        """Make one step; return summed loss, right answers and pictures, on the device."""
        progress, device = self.progress, self.arithmetic.device
        step = progress.epoch * self.batches_per_epoch + progress.batch
        torch.manual_seed(self._seed(step))
        own = batch[self.cluster.rank :: self.cluster.world_size]
        images = to_images(self.training.pixels[own], device)
        labels = torch.from_numpy(self.training.labels[own]).to(device)
        with self.arithmetic.autocast():
            logits = self.model(self.augment(images))
        loss = cross_entropy(
            logits.float(),
            labels,
            reduction="sum",
            label_smoothing=self.hyperparameters.label_smoothing,
        )
        # Gradients are averaged: each process's share is of the whole batch, not of its part.
        (loss * self.cluster.world_size / len(batch)).backward()  # type: ignore[no-untyped-call]
        for group in self.optimizer.param_groups:
            group["lr"] = self.peak * group["factor"] * one_cycle(step, self.total_steps)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        right = (logits.argmax(dim=1) == labels).sum()
        return torch.stack([loss.detach(), right, torch.tensor(len(own), device=device)]).double()

    def _finish_epoch(self, stop: StopRequest) -> bool:
        """Evaluate and keep the best; return False when a stop came in between."""
        progress = self.progress
        loss, right, pictures = progress.totals
        self._check_finite("training", loss)
        evaluation = evaluate(
            self.classifier,
            self.validation,
            self.arithmetic.device,
            self.num_classes,
            lambda: self._stop_everywhere(stop),
        )
        if evaluation is None:
            return False
        # The last step's weights are in this one only.
        self._check_finite("validation", evaluation.loss)
        progress.epoch, progress.batch, progress.totals = progress.epoch + 1, 0, (0.0, 0.0, 0.0)
        metrics = {
            "train_loss": loss / pictures,
            "train_accuracy": right / pictures,
            **evaluation.metrics(),
            "images_per_second": self._images_per_second,
        }
        progress.history.append(metrics)
        if self.cluster.is_first:
            logger.info("%s", log_line({"epoch": progress.epoch, **metrics}))
        best = progress.best
        objective = self.hyperparameters.objective or "val_accuracy"
        if best is None or is_better(objective, metrics, best.evaluation.metrics()):
            weights = {k: v.detach().clone() for k, v in self.classifier.state_dict().items()}
            progress.best = Best(progress.epoch, weights, evaluation)
        return True

    def _check_finite(self, name: str, loss: float) -> None:
        if not math.isfinite(loss):
            message = (
                f"the {name} loss is {loss} in epoch {self.progress.epoch + 1}: lower "
                f"learning_rate (its peak is {self.peak:g})"
            )
            raise UserError(message)

    def _log_best(self) -> None:
        """Say the kept epoch's metrics once more: a tuning job takes the last value it reads."""
        if self.progress.best is not None and self.cluster.is_first:
            best = self.progress.best
            logger.info("%s", log_line({"best_epoch": best.epoch, **best.evaluation.metrics()}))

    def _batches(self, epoch: int) -> list[npt.NDArray[np.int64]]:
        """Shuffle all pictures into batches of nearly equal sizes, none above batch_size."""
        random = np.random.default_rng((self.hyperparameters.seed, epoch))
        return np.array_split(random.permutation(len(self.training)), self.batches_per_epoch)

    def _seed(self, step: int) -> int:
        sequence = np.random.SeedSequence((self.hyperparameters.seed, step, self.cluster.rank))
        return int(sequence.generate_state(1, np.uint64)[0] >> 1)

    def _stop_everywhere(self, stop: StopRequest) -> bool:
        """Tell whether any process was asked to stop: they stop at the same step or deadlock."""
        if self.cluster.world_size == 1:
            return stop.requested
        return bool(self.cluster.total(torch.tensor(int(stop.requested))).item())

    def _save(self, directory: Path, fingerprint: str) -> None:
        if self.cluster.is_first:
            state = {
                "fingerprint": fingerprint,
                "classifier": self.classifier.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "progress": self.progress.to_state(),
            }
            step = self.progress.epoch * self.batches_per_epoch + self.progress.batch
            checkpoint.save(directory, step, state)

    def _continue_from(self, directory: Path, fingerprint: str) -> None:
        own = checkpoint.load_newest(directory, fingerprint) if self.cluster.is_first else None
        state = self.cluster.from_first(own)
        if isinstance(state, dict):
            self.classifier.load_state_dict(state["classifier"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.progress = Progress.from_state(state["progress"])
