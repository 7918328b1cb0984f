"""Gradual unfreezing and layer-wise learning rates."""

import pytest
import torch

from container.networks.network import Classifier, build
from container.training.fitting import unfreezing


@pytest.mark.parametrize(
    "name", ["resnet18", "vgg11", "squeezenet1_0", "mobilenet_v3_small", "vit_b_32", "densenet121"]
)
def test_depth_increases_from_the_first_layer_to_the_head(name: str) -> None:
    with torch.device("meta"):
        network = build(name, 3)
    depth_of = unfreezing.depths(network)
    body = [depth for depth in depth_of.values() if depth < unfreezing.GROUPS]

    assert list(depth_of) == [parameter for parameter, _ in network.module.named_parameters()]
    assert body == sorted(body)
    assert set(body) == set(range(unfreezing.GROUPS))
    assert [depth_of[f"{head}.1.weight"] for head in network.heads] == [unfreezing.GROUPS]


def test_learning_rate_factors_increase_tenfold_with_depth() -> None:
    factors = [unfreezing.learning_rate_factor(depth) for depth in range(unfreezing.GROUPS + 1)]

    assert factors == sorted(factors)
    assert [factors[0], factors[-1]] == pytest.approx([0.1, 1])


def test_the_first_stage_freezes_weights_and_statistics_of_first_layers() -> None:
    network = build("resnet18", 3)
    classifier = Classifier(network.module)
    unfreezing.freeze_first_layers(network, frozen=True)
    classifier.train()
    unfreezing.hold_statistics(network, pretrained=True)
    before = {name: value.clone() for name, value in network.module.state_dict().items()}

    classifier(torch.rand(4, 3, 32, 32) * 255).square().sum().backward()

    learns = {name for name, value in network.module.named_parameters() if value.grad is not None}
    assert "conv1.weight" not in learns
    assert "layer3.0.conv1.weight" not in learns
    assert {"layer4.1.conv2.weight", "fc.1.weight"} <= learns
    after = network.module.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "bn1.running_mean" not in changed
    assert "layer4.1.bn2.running_mean" in changed
    assert "fc.0.running_mean" not in changed


def test_all_layers_learn_after_the_first_stage() -> None:
    network = build("resnet18", 3)
    unfreezing.freeze_first_layers(network, frozen=True)

    unfreezing.freeze_first_layers(network, frozen=False)
    network.module.train()
    unfreezing.hold_statistics(network, pretrained=False)

    assert all(parameter.requires_grad for parameter in network.module.parameters())
    assert all(module.training for module in network.module.modules())
