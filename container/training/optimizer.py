"""The optimizer, its learning rates and their schedule."""

import math
from collections import defaultdict

import torch
from torch import nn
from torch.optim import Optimizer

from training import unfreezing
from training.hyperparameters import Hyperparameters
from training.network import SMALL, Network

# Share of the steps in which the learning rate rises.
WARM_UP = 0.2

_LEARNING_RATES = {
    # optimizer: (`small`, torchvision's from scratch, pretrained)
    "adamw": (0.005, 0.0005, 0.0002),
    "adam": (0.005, 0.0005, 0.0002),
    "sgd": (0.05, 0.01, 0.002),
}
_WEIGHT_DECAYS = {"adamw": 0.01, "adam": 0.0, "sgd": 0.0005}


def make_optimizer(
    network: Network, hyperparameters: Hyperparameters, *, pretrained: bool
) -> Optimizer:
    """Make the optimizer; biases and normalisation layers are spared the weight decay.

    Each of its groups says under `factor` its share of the schedule's learning rate, which differs
    by depth in a pretrained network.
    """
    name = hyperparameters.optimizer
    weight_decay = hyperparameters.weight_decay
    if weight_decay is None:
        weight_decay = _WEIGHT_DECAYS[name]
    depth_of = unfreezing.depths(network)
    by_kind: dict[tuple[float, bool], list[nn.Parameter]] = defaultdict(list)
    for parameter_name, parameter in network.module.named_parameters():
        depth = depth_of[parameter_name] if pretrained else 1.0
        factor = unfreezing.learning_rate_factor(depth)
        by_kind[factor, parameter.ndim > 1].append(parameter)
    groups = [
        {
            "params": parameters,
            "factor": factor,
            "weight_decay": weight_decay if is_weight else 0.0,
        }
        for (factor, is_weight), parameters in by_kind.items()
    ]
    # Fused: one pass over the weights instead of a dozen.
    if name == "sgd":
        return torch.optim.SGD(groups, lr=1.0, momentum=0.9, nesterov=True, fused=True)
    kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    return kind(groups, lr=1.0, fused=True)


def peak_learning_rate(hyperparameters: Hyperparameters, *, pretrained: bool) -> float:
    """Return the peak of the one-cycle schedule."""
    if hyperparameters.learning_rate is not None:
        return hyperparameters.learning_rate
    small, from_scratch, fine_tuned = _LEARNING_RATES[hyperparameters.optimizer]
    if pretrained:
        return fine_tuned
    return small if hyperparameters.network == SMALL else from_scratch


def one_cycle(step: int, total_steps: int) -> float:
    """Return the share of the peak learning rate at `step` (Smith 2018).

    A rise over the first fifth, then half a cosine down to zero.
    """
    progress = (step + 1) / (total_steps + 1)
    if progress < WARM_UP:
        return progress / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))
