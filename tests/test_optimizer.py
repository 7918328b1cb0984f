"""The optimizer and its learning rates."""

import numpy as np
import pytest
import torch
from torch.optim import Optimizer

from container.networks.network import Network, build
from container.training.fitting.optimizer import (
    CompositeOptimizer,
    make_optimizer,
)
from container.training.hyperparameters import Hyperparameters
from container.training.recipe import Recipe
from container.training.schedule import one_cycle

LABELS = np.repeat([0, 1], 50)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "muon"])
def test_learning_rate_of_pretrained_networks_is_not_higher_unless_given(optimizer: str) -> None:
    def rate(*, pretrained: bool, **settings: object) -> float:
        hyperparameters = Hyperparameters(optimizer=optimizer, **settings)  # type: ignore[arg-type]
        return Recipe.of(hyperparameters, LABELS, pretrained=pretrained).learning_rate

    assert rate(pretrained=True) <= rate(pretrained=False)
    assert rate(pretrained=False) < rate(pretrained=False, network="small")
    assert rate(pretrained=True, learning_rate=0.125) == 0.125


def groups_of(*, pretrained: bool) -> dict[str, tuple[float, float]]:
    """Return factor and weight decay of every parameter of a small network."""
    network = build("small", 3)
    optimizer = make_optimizer(network, "adamw", 0.25, pretrained=pretrained)
    found = {
        id(parameter): (group["factor"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    return {name: found[id(p)] for name, p in network.module.named_parameters()}


def test_biases_and_normalization_have_no_weight_decay() -> None:
    groups = groups_of(pretrained=False)

    assert groups["stem.0.weight"] == groups["head.weight"] == (1.0, 0.25)
    assert groups["stem.1.weight"] == groups["stem.1.bias"] == groups["head.bias"] == (1.0, 0.0)


def test_learning_rates_of_pretrained_layers_increase_with_depth() -> None:
    groups = groups_of(pretrained=True)
    factors = [factor for factor, _ in groups.values()]

    assert factors == sorted(factors)
    assert groups["stem.0.weight"][0] == pytest.approx(0.1)
    assert groups["head.weight"][0] == groups["head.bias"][0] == 1.0
    assert len(set(factors)) == 7


@pytest.mark.parametrize(
    ("settings", "pretrained", "expected"),
    [
        ({"network": "small"}, False, "muon"),
        ({"network": "small"}, True, "adamw"),
        ({"network": "resnet18"}, False, "adamw"),
        ({"network": "small", "optimizer": "sgd"}, False, "sgd"),
    ],
)
def test_the_default_optimizer_depends_on_the_network(
    settings: dict[str, str], *, pretrained: bool, expected: str
) -> None:
    hyperparameters = Hyperparameters(**settings)  # type: ignore[arg-type]

    assert Recipe.of(hyperparameters, LABELS, pretrained=pretrained).optimizer == expected


def test_muon_trains_hidden_matrices_and_adamw_the_rest() -> None:
    network = build("vit_b_32", 3)
    optimizer = make_optimizer(network, "muon", 0.01, pretrained=False)
    assert isinstance(optimizer, CompositeOptimizer)
    names = {id(p): name for name, p in network.module.named_parameters()}

    muon, adamw = (
        {names[id(p)] for group in one.param_groups for p in group["params"]}
        for one in optimizer.optimizers
    )

    assert muon | adamw == set(names.values())
    assert not muon & adamw
    assert {"conv_proj.weight", "encoder.layers.encoder_layer_0.mlp.0.weight"} <= muon
    assert {"class_token", "encoder.pos_embedding", "heads.head.1.weight"} <= adamw
    assert not any(name.endswith("bias") for name in muon)


def test_a_composite_optimizer_continues_from_its_state() -> None:
    def steps(network: Network, optimizer: Optimizer, seeds: range) -> None:
        for seed in seeds:
            for group in optimizer.param_groups:
                group["lr"] = 0.01
            torch.manual_seed(seed)
            network.module(torch.rand(2, 3, 16, 16)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    whole, first, second = (build("small", 3) for _ in range(3))
    first.module.load_state_dict(whole.module.state_dict())
    steps(whole, make_optimizer(whole, "muon", 0.01, pretrained=False), range(4))

    before = make_optimizer(first, "muon", 0.01, pretrained=False)
    steps(first, before, range(2))
    second.module.load_state_dict(first.module.state_dict())
    after = make_optimizer(second, "muon", 0.01, pretrained=False)
    after.load_state_dict(before.state_dict())
    steps(second, after, range(2, 4))

    expected = whole.module.state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in second.module.state_dict().items())


def test_one_cycle_rises_for_a_fifth_then_falls_to_zero() -> None:
    shares = [one_cycle(step, 1000) for step in range(1000)]
    top = shares.index(max(shares))

    assert top == pytest.approx(200, abs=2)
    assert max(shares) == pytest.approx(1, abs=0.01)
    assert shares[:top] == sorted(shares[:top])
    assert shares[top:] == sorted(shares[top:], reverse=True)
    assert 0 < shares[0] < 0.01
    assert 0 < shares[-1] < 0.01


def test_one_cycle_of_a_single_step_is_positive() -> None:
    assert 0 < one_cycle(0, 1) <= 1
