"""How far a training run is; part of every checkpoint."""

from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from container.training.evaluation.evaluation import Evaluation


@dataclass(slots=True)
class Best:
    """The epoch whose weights are kept."""

    epoch: int
    weights: dict[str, Tensor]
    evaluation: Evaluation


@dataclass(slots=True)
class Progress:
    """How far a run is."""

    learning_rate: float
    """Peak of its schedule."""

    epoch: int = 0
    """Of the step that comes next, from 0."""

    batch: int = 0
    """Within the epoch, of the step that comes next."""

    totals: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Of this epoch so far: summed loss, right answers, images."""

    history: list[dict[str, float]] = field(default_factory=list)
    """The metrics of every finished epoch."""

    best: Best | None = None

    stopping_rule: str | None = None
    """The debugger's rule that has ended the training."""

    def to_state(self) -> dict[str, object]:
        """Return plain values and tensors, as a checkpoint holds them."""
        best = self.best and {
            "epoch": self.best.epoch,
            "weights": self.best.weights,
            "loss": self.best.evaluation.loss,
            "confusion": torch.from_numpy(self.best.evaluation.confusion),
        }
        return {
            "learning_rate": self.learning_rate,
            "epoch": self.epoch,
            "batch": self.batch,
            "totals": self.totals,
            "history": self.history,
            "best": best,
            "stopping_rule": self.stopping_rule,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Return what `to_state` was called on."""
        best = state["best"]
        if best is not None:
            evaluation = Evaluation(best["loss"], best["confusion"].numpy())
            best = Best(best["epoch"], best["weights"], evaluation)
        return cls(**{**state, "best": best})
