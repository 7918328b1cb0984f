"""The optimizer and its learning rates."""

import pytest

from training.hyperparameters import Hyperparameters
from training.network import build
from training.optimizer import make_optimizer, one_cycle, peak_learning_rate


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_pretrained_networks_learn_more_slowly_and_a_given_rate_is_taken(optimizer: str) -> None:
    def rate(*, pretrained: bool, **settings: object) -> float:
        hyperparameters = Hyperparameters(optimizer=optimizer, **settings)  # type: ignore[arg-type]
        return peak_learning_rate(hyperparameters, pretrained=pretrained)

    assert rate(pretrained=True) < rate(pretrained=False) < rate(pretrained=False, network="small")
    assert rate(pretrained=True, learning_rate=0.125) == 0.125


def groups_of(*, pretrained: bool) -> dict[str, tuple[float, float]]:
    """Return factor and weight decay of every parameter of a small network."""
    network = build("small", 3)
    optimizer = make_optimizer(network, Hyperparameters(weight_decay=0.25), pretrained=pretrained)
    found = {
        id(parameter): (group["factor"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    return {name: found[id(p)] for name, p in network.module.named_parameters()}


def test_biases_and_normalisation_do_not_decay() -> None:
    groups = groups_of(pretrained=False)

    assert groups["0.0.weight"] == groups["11.weight"] == (1.0, 0.25)
    assert groups["0.1.weight"] == groups["0.1.bias"] == groups["11.bias"] == (1.0, 0.0)


def test_the_deeper_a_pretrained_layer_the_faster_it_learns() -> None:
    groups = groups_of(pretrained=True)
    factors = [factor for factor, _ in groups.values()]

    assert factors == sorted(factors)
    assert groups["0.0.weight"][0] == pytest.approx(0.1)
    assert groups["11.weight"][0] == groups["11.bias"][0] == 1.0
    assert len(set(factors)) == 5


def test_one_cycle_rises_for_a_fifth_and_falls_to_nearly_zero() -> None:
    shares = [one_cycle(step, 1000) for step in range(1000)]
    top = shares.index(max(shares))

    assert top == pytest.approx(200, abs=2)
    assert max(shares) == pytest.approx(1, abs=0.01)
    assert shares[:top] == sorted(shares[:top])
    assert shares[top:] == sorted(shares[top:], reverse=True)
    assert 0 < shares[0] < 0.01
    assert 0 < shares[-1] < 0.01


def test_one_cycle_of_a_single_step_learns_something() -> None:
    assert 0 < one_cycle(0, 1) <= 1
