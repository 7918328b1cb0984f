"""The optimizer and its learning rates."""

from collections import defaultdict
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from container.networks.network import SMALL, Network
from container.training.fitting import unfreezing
from container.training.fitting.muon import Muon
from container.training.hyperparameters import Hyperparameters

_LEARNING_RATES = {
    # optimizer: (`small`, torchvision's from scratch, pretrained)
    "adamw": (0.005, 0.0005, 0.0002),
    "adam": (0.005, 0.0005, 0.0002),
    "sgd": (0.05, 0.01, 0.002),
    "muon": (0.02, 0.01, 0.001),
}
_WEIGHT_DECAYS = {"adamw": 0.01, "adam": 0.0, "sgd": 0.0005, "muon": 0.01}

# What Muon is not for, AdamW learns, at this share of its learning rate.
ADAMW_BESIDE_MUON = 0.25


class Together(Optimizer):
    """Several optimizers that step as one."""

    def __init__(self, *optimizers: Optimizer) -> None:
        """Join optimizers of different parameters."""
        self.optimizers = optimizers
        self.param_groups = [group for one in optimizers for group in one.param_groups]

    def step(self, _closure: object = None) -> None:  # type: ignore[override]
        """Make every optimizer's step."""
        for one in self.optimizers:
            one.step()

    def zero_grad(self, set_to_none: bool = True) -> None:  # noqa: FBT001, FBT002 - torch's
        """Forget every parameter's gradient."""
        for one in self.optimizers:
            one.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Return every optimizer's state."""
        return {str(number): one.state_dict() for number, one in enumerate(self.optimizers)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        for number, one in enumerate(self.optimizers):
            one.load_state_dict(state_dict[str(number)])
        # Loading replaces the groups.
        self.param_groups = [group for one in self.optimizers for group in one.param_groups]


def make_optimizer(
    network: Network, hyperparameters: Hyperparameters, *, pretrained: bool
) -> Optimizer:
    """Make the optimizer; biases and normalization layers are spared the weight decay.

    Each of its groups says under `factor` its share of the schedule's learning rate, which differs
    by depth in a pretrained network.
    """
    name = optimizer_name(hyperparameters, pretrained=pretrained)
    weight_decay = hyperparameters.weight_decay
    if weight_decay is None:
        weight_decay = _WEIGHT_DECAYS[name]
    depth_of = unfreezing.depths(network)
    matrices = _matrices(network) if name == "muon" else set()
    by_kind: dict[tuple[bool, float, bool], list[nn.Parameter]] = defaultdict(list)
    for parameter_name, parameter in network.module.named_parameters():
        factor = unfreezing.learning_rate_factor(depth_of[parameter_name]) if pretrained else 1.0
        kind = parameter_name in matrices, factor, parameter.ndim > 1
        by_kind[kind].append(parameter)
    groups: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for (is_matrix, factor, is_weight), parameters in by_kind.items():
        group = {
            "params": parameters,
            "factor": factor if is_matrix or name != "muon" else factor * ADAMW_BESIDE_MUON,
            "weight_decay": weight_decay if is_weight else 0.0,
        }
        groups[is_matrix].append(group)
    # Fused: one pass over the weights instead of a dozen.
    if name == "sgd":
        return torch.optim.SGD(groups[False], lr=1.0, momentum=0.9, nesterov=True, fused=True)
    kind_of_adam = torch.optim.Adam if name == "adam" else torch.optim.AdamW
    adam = kind_of_adam(groups[False], lr=1.0, fused=True)
    return Together(Muon(groups[True]), adam) if name == "muon" else adam


def optimizer_name(hyperparameters: Hyperparameters, *, pretrained: bool) -> str:
    """Return the optimizer asked for, else what suits the network."""
    if hyperparameters.optimizer is not None:
        return hyperparameters.optimizer
    return "muon" if hyperparameters.network == SMALL and not pretrained else "adamw"


def _matrices(network: Network) -> set[str]:
    """Return the names of the weights that Muon is for: hidden layers'."""
    heads = tuple(f"{name}." for name in network.heads)
    return {
        f"{name}.weight"
        for name, layer in network.module.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear) and not f"{name}.".startswith(heads)
    }


def peak_learning_rate(hyperparameters: Hyperparameters, *, pretrained: bool) -> float:
    """Return the peak of the one-cycle schedule."""
    if hyperparameters.learning_rate is not None:
        return hyperparameters.learning_rate
    name = optimizer_name(hyperparameters, pretrained=pretrained)
    small, from_scratch, fine_tuned = _LEARNING_RATES[name]
    if pretrained:
        return fine_tuned
    return small if hyperparameters.network == SMALL else from_scratch
