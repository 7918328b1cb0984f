"""The frozen stage: train the new head of a network whose backbone is frozen, in seconds.

The features of a frozen backbone depend on the image alone, so they are computed once. Heads for
all combinations of a few learning rates and weight decays are trained on them in parallel. The best
one on the validation images becomes the network's head.
"""

import logging
import math
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from container.classifier.errors import UserError
from container.networks.network import Network
from container.training.evaluation.evaluation import Evaluation, is_better
from container.training.head.features import Features
from container.training.head.head_bank import Bank, HeadTrainer, Rates, Standardization
from container.training.hyperparameters import Hyperparameters
from container.training.recipe import head_candidates
from container.training.sagemaker.stop import Stop

logger = logging.getLogger(__name__)


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
) -> tuple[Rates, Evaluation]:
    """Train a bank of heads, and replace the network's last head by the best one.

    `objective` decides which head is the best, and the loss between equal ones: the loss alone
    would prefer heads that are merely less confident. `class_weights` (C,) apply to the loss.

    Returns:
        The rates of the best head, and its evaluation on the features, which may have been computed
        in bfloat16.

    Raises:
        UserError: no head has a finite loss.
        Stopped: a stop was requested.
    """
    start = time.monotonic()
    layer = _layers_of(network)[1]
    candidates = [Rates(*pair) for pair in head_candidates(hyperparameters)]
    bank = Bank(candidates, layer.in_features, layer.out_features).to(device)
    standardize = Standardization.of(training, device)
    trainer = HeadTrainer(bank, training, standardize, hyperparameters, class_weights=class_weights)
    for epoch in range(trainer.epochs):
        stop.check()
        trainer.train_one_epoch(epoch)
    evaluations = bank.evaluate(validation, standardize)
    for rates, evaluation in zip(bank.rates, evaluations, strict=True):
        # Not under the names of metrics: SageMaker would read these values too.
        logger.info(
            "frozen_stage %s loss=%.4g accuracy=%.4g", rates, evaluation.loss, evaluation.accuracy
        )
    best = _best(evaluations, objective)
    _write(network, bank.weights[best], bank.biases[best], standardize)
    logger.info(
        "frozen_stage chosen %s steps=%d seconds=%.1f",
        bank.rates[best],
        trainer.total_steps,
        time.monotonic() - start,
    )
    return bank.rates[best], evaluations[best]


def _best(evaluations: Sequence[Evaluation], objective: str) -> int:
    """Return the index of the best evaluation."""
    best: int | None = None
    for index, evaluation in enumerate(evaluations):
        if not math.isfinite(evaluation.loss):
            continue
        metrics = evaluation.metrics()
        if best is None or is_better(objective, metrics, evaluations[best].metrics()):
            best = index
    if best is None:
        raise UserError(
            "the validation loss of the frozen stage is not finite: the pretrained weights may be "
            "damaged, or learning_rate is far too high"
        )
    return best


def _layers_of(network: Network) -> tuple[nn.BatchNorm1d | None, nn.Linear]:
    """Return the layer that standardizes the input of the last head, if any, and the head."""
    layers = [*network.module.get_submodule(network.heads[-1]).modules()]
    norm = next((layer for layer in layers if isinstance(layer, nn.BatchNorm1d)), None)
    return norm, next(layer for layer in layers if isinstance(layer, nn.Linear))


@torch.no_grad()
def _write(network: Network, weight: Tensor, bias: Tensor, standardize: Standardization) -> None:
    """Set the weights of the network's head, for features that are not standardized."""
    norm, layer = _layers_of(network)
    if norm is None:
        # The weights include the standardization.
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
