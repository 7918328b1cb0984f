"""What hyperparameters mean."""

import pytest
import torch

from classifier.errors import UserError
from training.hyperparameters import Hyperparameters
from training.recipe import (
    HEAD_FACTOR,
    Arithmetic,
    arithmetic,
    image_size,
    make_optimizer,
    one_cycle,
    peak_learning_rate,
    smallest_share,
    wants_download,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("network", "pretrained", "expected"),
    [
        ("small", None, False),
        ("resnet18", None, True),
        ("resnet18", False, False),
        ("small", True, True),
    ],
)
def test_networks_of_torchvision_start_from_its_weights_unless_told_otherwise(
    network: str, *, pretrained: bool | None, expected: bool
) -> None:
    assert wants_download(Hyperparameters(network=network, pretrained=pretrained)) is expected


@pytest.mark.parametrize(
    ("network", "size", "expected"),
    [("small", None, 64), ("resnet18", None, 224), ("small", 128, 128), ("resnet18", 96, 96)],
)
def test_the_image_size_is_the_networks_unless_given(
    network: str, size: int | None, expected: int
) -> None:
    assert image_size(Hyperparameters(network=network, image_size=size)) == expected


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_pretrained_networks_learn_more_slowly_and_a_given_rate_is_taken(optimizer: str) -> None:
    def rate(*, pretrained: bool, **settings: object) -> float:
        hyperparameters = Hyperparameters(optimizer=optimizer, **settings)  # type: ignore[arg-type]
        return peak_learning_rate(hyperparameters, pretrained=pretrained)

    assert rate(pretrained=True) < rate(pretrained=False) < rate(pretrained=False, network="small")
    assert rate(pretrained=True, learning_rate=0.125) == 0.125


def test_heads_learn_faster_and_biases_and_normalisation_do_not_decay() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    head = torch.nn.Linear(2, 4)
    module.append(head)

    groups = make_optimizer(module, ["2"], Hyperparameters(weight_decay=0.25)).param_groups

    found = {
        id(parameter): (group["factor"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }
    assert found[id(module[0].weight)] == (1.0, 0.25)
    assert found[id(module[0].bias)] == found[id(module[1].weight)] == (1.0, 0.0)
    assert found[id(head.weight)] == (HEAD_FACTOR, 0.25)
    assert found[id(head.bias)] == (HEAD_FACTOR, 0.0)
    assert len(found) == len(list(module.parameters()))


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


@pytest.mark.parametrize(
    ("pictures", "batch_size", "hosts", "share"),
    [(24, 8, 1, 8), (25, 8, 1, 6), (9, 8, 1, 4), (9, 8, 2, 2), (5, 64, 1, 5), (1000, 64, 4, 15)],
)
def test_the_smallest_share_is_that_of_the_smallest_batch(
    pictures: int, batch_size: int, hosts: int, share: int
) -> None:
    assert smallest_share(pictures, batch_size, hosts) == share


def test_hosts_without_a_picture_are_refused() -> None:
    with pytest.raises(UserError, match="3 pictures in batches of 64 leave some of the 4 hosts"):
        smallest_share(3, 64, 4)


def test_the_arithmetic_is_as_asked_for_and_said_in_words() -> None:
    assert arithmetic("float32").dtype is torch.float32
    assert arithmetic("bfloat16").dtype is torch.bfloat16
    assert arithmetic("auto").dtype in {torch.float32, torch.bfloat16}
    assert str(Arithmetic(CPU, torch.bfloat16)) == "cpu/bfloat16"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_forward_pass_is_computed_in_that_format(dtype: torch.dtype) -> None:
    layer = torch.nn.Linear(3, 3)

    with Arithmetic(CPU, dtype).autocast():
        assert layer(torch.ones(1, 3)).dtype is dtype
