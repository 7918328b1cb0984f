"""The position of a training run; part of every checkpoint."""

import math
from dataclasses import dataclass, field, fields
from typing import Any, Self

import torch
from torch import Tensor

from container.classifier.errors import UserError
from container.networks.network import Classifier
from container.training.evaluation.evaluation import Evaluation, is_better


@dataclass(slots=True)
class Best:
    """The epoch whose weights are kept."""

    epoch: int
    weights: dict[str, Tensor]
    evaluation: Evaluation


@dataclass(slots=True)
class Progress:
    """The position of a training run and its results so far."""

    epoch: int = 0
    """Of the next step, from 0."""

    batch: int = 0
    """Of the next step within the epoch, from 0."""

    totals: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Of this epoch's steps: summed loss, correct answers, images."""

    history: list[dict[str, float]] = field(default_factory=list)
    """The metrics of every finished epoch."""

    best: Best | None = None

    stopping_rule: str | None = None
    """The debugger rule that has ended the training."""

    def keep_if_better(
        self, evaluation: Evaluation, classifier: Classifier, objective: str
    ) -> None:
        """Keep a copy of the evaluated weights if their evaluation is the best so far."""
        best = self.best
        if best is None or is_better(objective, evaluation.metrics(), best.evaluation.metrics()):
            state = classifier.state_dict()
            weights = {name: value.detach().clone() for name, value in state.items()}
            self.best = Best(self.epoch, weights, evaluation)

    def check_finite(self, name: str, loss: float, peak: float) -> None:
        """Check the loss of the present epoch, given the peak of the learning rate.

        Raises:
            UserError: it is NaN or infinite.
        """
        if not math.isfinite(loss):
            raise UserError(
                f"the {name} loss is {loss} in epoch {self.epoch + 1}: lower learning_rate (its "
                f"peak is {peak:g})"
            )

    def to_state(self) -> dict[str, object]:
        """Return plain values and tensors, for a checkpoint."""
        state = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.best is not None:
            state["best"] = {
                "epoch": self.best.epoch,
                "weights": self.best.weights,
                "loss": self.best.evaluation.loss,
                "confusion": torch.from_numpy(self.best.evaluation.confusion),
            }
        return state

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Restore what `to_state` returned."""
        best = state["best"]
        if best is not None:
            evaluation = Evaluation(best["loss"], best["confusion"].numpy())
            best = Best(best["epoch"], best["weights"], evaluation)
        return cls(**{**state, "best": best})
