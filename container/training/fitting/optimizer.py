"""The optimizers and their parameter groups."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from container.networks.network import Network
from container.training.fitting import unfreezing

MUON_MOMENTUM = 0.95

# An odd polynomial that maps singular values to about 1. Three iterations suffice for networks.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 3

# AdamW trains the parameters that Muon is not made for, at this fraction of Muon's learning rate.
ADAMW_FACTOR = 0.25


class Muon(Optimizer):
    """Orthogonalizes the momentum before each step (Jordan et al. 2024).

    For the weights of convolutions and hidden linear layers, used as matrices.

    Its groups have `lr` and a `weight_decay` that is decoupled from the gradients as in AdamW.
    """

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        """Start without momentum."""
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, _closure: object = None) -> None:  # type: ignore[override]
        """Update all weights that have a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"].mul_(MUON_MOMENTUM).add_(weight.grad)
                # Nesterov's momentum: the gradient plus the momentum of the next step.
                update = orthogonal(weight.grad.add(momentum, alpha=MUON_MOMENTUM).flatten(1))
                # Tall matrices then have updates as large as those of wide ones.
                scale = max(1, update.shape[0] / update.shape[1]) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update.view(weight.shape), alpha=-group["lr"] * scale)


class CompositeOptimizer(Optimizer):
    """Several optimizers that step as one."""

    def __init__(self, *optimizers: Optimizer) -> None:
        """Combine optimizers of different parameters."""
        self.optimizers = optimizers
        self.param_groups = [group for part in optimizers for group in part.param_groups]

    def step(self, _closure: object = None) -> None:  # type: ignore[override]
        """Step all optimizers."""
        for optimizer in self.optimizers:
            optimizer.step()

    def zero_grad(self, set_to_none: bool = True) -> None:  # noqa: FBT001, FBT002 - torch's
        """Reset all gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all optimizers."""
        return {str(number): part.state_dict() for number, part in enumerate(self.optimizers)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for number, optimizer in enumerate(self.optimizers):
            optimizer.load_state_dict(state_dict[str(number)])
        # Loading replaces the groups.
        self.param_groups = [group for part in self.optimizers for group in part.param_groups]


def make_optimizer(
    network: Network, name: str, weight_decay: float, *, pretrained: bool
) -> Optimizer:
    """Create an optimizer without weight decay for biases and normalization layers.

    `factor` in each parameter group multiplies the schedule's learning rate, which depends on
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
    return {
        f"{name}.weight"
        for name, layer in network.module.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear) and not network.in_head(f"{name}.weight")
    }


def orthogonal(matrix: Tensor) -> Tensor:
    """Return roughly the nearest orthogonal matrix to `matrix` (R, C), by Newton and Schulz.

    Its large singular values become about 1, which trains as well as exactly 1. Each iteration
    multiplies by a polynomial of x @ x.T. These polynomials commute, so their product is computed
    first, as small square matrices, and multiplied by x once.
    """
    x = matrix.bfloat16()
    if is_tall := x.shape[0] > x.shape[1]:
        x = x.T
    x = x / (x.norm() + 1e-7)
    gram = x @ x.T
    factor = polynomial = _polynomial(gram)
    for _ in range(ITERATIONS - 1):
        gram = polynomial @ gram @ polynomial
        polynomial = _polynomial(gram)
        factor = polynomial @ factor
    x = factor @ x
    result: Tensor = (x.T if is_tall else x).to(matrix.dtype)
    return result


def _polynomial(gram: Tensor) -> Tensor:
    a, b, c = COEFFICIENTS
    result = torch.addmm(gram, gram, gram, beta=b, alpha=c)
    result.diagonal().add_(a)
    return result
