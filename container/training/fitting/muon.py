"""Muon: momentum that is orthogonalized before each step (Jordan et al. 2024)."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

MOMENTUM = 0.95

# Of the odd polynomial that maps singular values to about 1. Three iterations suffice for networks.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 3


class Muon(Optimizer):
    """An optimizer of the weights of convolutions and hidden linear layers, used as matrices.

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
                momentum = state["momentum"].mul_(MOMENTUM).add_(weight.grad)
                # Nesterov's momentum: the gradient plus the momentum of the next step.
                update = orthogonal(weight.grad.add(momentum, alpha=MOMENTUM).flatten(1))
                # Tall matrices then have updates as large as those of wide ones.
                scale = max(1, update.shape[0] / update.shape[1]) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update.view(weight.shape), alpha=-group["lr"] * scale)


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
