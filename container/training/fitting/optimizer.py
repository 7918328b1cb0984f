"""The optimizer and its parameter groups."""

from collections import defaultdict
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from container.networks.network import Network
from container.training.fitting import unfreezing
from container.training.fitting.muon import Muon

# AdamW trains the parameters that Muon is not made for, at this share of Muon's learning rate.
ADAMW_FACTOR = 0.25


class CompositeOptimizer(Optimizer):
    """Several optimizers that step as one."""

    def __init__(self, *optimizers: Optimizer) -> None:
        """Combine optimizers of different parameters."""
        self.optimizers = optimizers
        self.param_groups = [group for one in optimizers for group in one.param_groups]

    def step(self, _closure: object = None) -> None:  # type: ignore[override]
        """Step all optimizers."""
        for one in self.optimizers:
            one.step()

    def zero_grad(self, set_to_none: bool = True) -> None:  # noqa: FBT001, FBT002 - torch's
        """Reset all gradients."""
        for one in self.optimizers:
            one.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all optimizers."""
        return {str(number): one.state_dict() for number, one in enumerate(self.optimizers)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for number, one in enumerate(self.optimizers):
            one.load_state_dict(state_dict[str(number)])
        # Loading replaces the groups.
        self.param_groups = [group for one in self.optimizers for group in one.param_groups]


def make_optimizer(
    network: Network, name: str, weight_decay: float, *, pretrained: bool
) -> Optimizer:
    """Create an optimizer without weight decay for biases and normalization layers.

    `factor` in each parameter group is its share of the schedule's learning rate, which depends on
    the depth in a pretrained network.
    """
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
            "factor": factor if is_matrix or name != "muon" else factor * ADAMW_FACTOR,
            "weight_decay": weight_decay if is_weight else 0.0,
        }
        groups[is_matrix].append(group)
    # Fused: one pass over the weights instead of a dozen.
    if name == "sgd":
        return torch.optim.SGD(groups[False], lr=1.0, momentum=0.9, nesterov=True, fused=True)
    adam_class = torch.optim.Adam if name == "adam" else torch.optim.AdamW
    adam = adam_class(groups[False], lr=1.0, fused=True)
    return CompositeOptimizer(Muon(groups[True]), adam) if name == "muon" else adam


def _matrices(network: Network) -> set[str]:
    """Return the names of the weights of hidden layers, which Muon trains."""
    heads = tuple(f"{name}." for name in network.heads)
    return {
        f"{name}.weight"
        for name, layer in network.module.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear) and not f"{name}.".startswith(heads)
    }
