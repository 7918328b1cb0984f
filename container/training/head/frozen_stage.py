"""The frozen stage: a head for a backbone that stays as it is, trained in seconds.

A frozen backbone is a function of the image, so its features are computed once. Heads for every
combination of a few learning rates and weight decays learn from them side by side, and the best one
on the validation images becomes the network's.
"""

import itertools
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from container.classifier.errors import UserError
from container.networks.network import Network
from container.training.evaluation.evaluation import Evaluation, is_better
from container.training.head.features import Features
from container.training.head.head_bank import Bank, Lesson, Rates, Standardization
from container.training.hyperparameters import Hyperparameters
from container.training.sagemaker.stop import Stop

logger = logging.getLogger(__name__)

# Of heads on standardized features. Weight decay acts through the learning rate, in a few hundred
# steps: it takes far more of it than fine-tuning does.
LEARNING_RATES: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03)
WEIGHT_DECAYS: tuple[float, ...] = (0.3, 1.0, 3.0)


@dataclass(frozen=True, slots=True)
class Choice:
    """The head that the network has got."""

    rates: Rates

    evaluation: Evaluation
    """On the features, which may be those of bfloat16."""


def train(
    network: Network,
    training: Features,
    validation: Features,
    hyperparameters: Hyperparameters,
    *,
    objective: str,
    class_weights: npt.NDArray[np.float32] | None,
    device: torch.device,
    stop: Stop,
) -> Choice:
    """Train a bank of heads and give the network the best one.

    Judged by `objective`, of equal ones by the loss: the loss alone prefers heads that are merely
    less sure of themselves. The weights of the classes (C,) are the loss's.

    Raises:
        UserError: no head's loss is a number.
        Stopped: a stop was requested.
    """
    start = time.monotonic()
    layer = _layers_of(network)[1]
    bank = Bank(_rates(hyperparameters), layer.in_features, layer.out_features).to(device)
    standardize = Standardization.of(training, device)
    lesson = Lesson(bank, training, standardize, hyperparameters, class_weights=class_weights)
    for epoch in range(lesson.epochs):
        stop.check()
        lesson.train_one_epoch(epoch)
    evaluations = bank.evaluate(validation, standardize)
    for rates, evaluation in zip(bank.rates, evaluations, strict=True):
        # No names of metrics: a job's are those of its epochs.
        logger.info(
            "frozen_stage %s loss=%.4g accuracy=%.4g", rates, evaluation.loss, evaluation.accuracy
        )
    best = _best(evaluations, objective)
    _write(network, bank.weights[best], bank.biases[best], standardize)
    logger.info(
        "frozen_stage chosen %s steps=%d seconds=%.1f",
        bank.rates[best],
        lesson.total_steps,
        time.monotonic() - start,
    )
    return Choice(bank.rates[best], evaluations[best])


def _rates(hyperparameters: Hyperparameters) -> list[Rates]:
    """Return every combination of what the user left open."""
    learning_rates, weight_decays = LEARNING_RATES, WEIGHT_DECAYS
    # With further stages those given are theirs.
    if hyperparameters.fine_tuning == "none":
        if hyperparameters.learning_rate is not None:
            learning_rates = (hyperparameters.learning_rate,)
        if hyperparameters.weight_decay is not None:
            weight_decays = (hyperparameters.weight_decay,)
    return [Rates(*pair) for pair in itertools.product(learning_rates, weight_decays)]


def _best(evaluations: Sequence[Evaluation], objective: str) -> int:
    """Return the place of the best one."""
    best: int | None = None
    for place, evaluation in enumerate(evaluations):
        if not math.isfinite(evaluation.loss):
            continue
        metrics = evaluation.metrics()
        if best is None or is_better(objective, metrics, evaluations[best].metrics()):
            best = place
    if best is None:
        message = (
            "the validation loss of the frozen stage is no number: the pretrained weights may be "
            "damaged, or learning_rate is far too high"
        )
        raise UserError(message)
    return best


def _layers_of(network: Network) -> tuple[nn.BatchNorm1d | None, nn.Linear]:
    """Return what standardizes the input of the network's last head, if anything, and the head."""
    layers = [*network.module.get_submodule(network.heads[-1]).modules()]
    norm = next((layer for layer in layers if isinstance(layer, nn.BatchNorm1d)), None)
    return norm, next(layer for layer in layers if isinstance(layer, nn.Linear))


@torch.no_grad()
def _write(network: Network, weight: Tensor, bias: Tensor, standardize: Standardization) -> None:
    """Give the network a head that computes the same from features as they are."""
    norm, layer = _layers_of(network)
    if norm is None:
        # Its weights standardize.
        weight = weight / standardize.deviation
        bias = bias - weight @ standardize.mean
    else:
        own = norm.state_dict() | {
            "running_mean": standardize.mean,
            "running_var": standardize.variance,
        }
        norm.load_state_dict(own)
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
