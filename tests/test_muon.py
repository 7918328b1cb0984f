"""The Muon optimizer, compared with its definition."""

import pytest
import torch

from container.training.fitting.optimizer import Muon, orthogonal


@pytest.mark.parametrize("shape", [(8, 8), (8, 50), (50, 8)])
def test_an_update_is_orthogonal(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    lengths = torch.logspace(0, -0.7, min(shape))

    found = orthogonal(left @ torch.diag(lengths) @ right)

    core = left.T @ found @ right.T
    assert 0.5 < core.diagonal().min() < core.diagonal().max() < 1.3
    assert (core - torch.diag(core.diagonal())).abs().max() < 0.05


def test_the_length_of_a_gradient_does_not_matter() -> None:
    gradient = torch.randn(4, 6)

    torch.testing.assert_close(
        orthogonal(gradient), orthogonal(gradient * 1024), rtol=0.02, atol=0.01
    )


def test_filters_are_matrices_with_decoupled_weight_decay() -> None:
    weight = torch.nn.Parameter(torch.ones(4, 2, 3, 3))
    still = torch.nn.Parameter(torch.ones(4, 2))
    optimizer = Muon([{"params": [weight, still], "lr": 0.1, "weight_decay": 0.5}])
    weight.grad = torch.randn(4, 2, 3, 3)

    optimizer.step()

    expected = 0.95 - 0.1 * orthogonal((weight.grad * 1.95).flatten(1)).view(4, 2, 3, 3)
    torch.testing.assert_close(weight.detach(), expected)
    # A weight without a gradient is not changed.
    assert torch.equal(still.detach(), torch.ones(4, 2))


def test_muon_minimizes_a_badly_scaled_function() -> None:
    target, scale = torch.randn(6, 6), torch.logspace(0, -2, 6)
    weight = torch.nn.Parameter(torch.zeros(6, 6))
    optimizer = Muon([{"params": [weight]}])
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 300)
        ((weight - target) * scale).square().sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    assert (weight - target).abs().max() < 0.1
