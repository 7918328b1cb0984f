"""The networks: heads, inputs and export."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from container.classifier.errors import UserError
from container.networks.network import (
    SMALL,
    Classifier,
    Network,
    ServedClassifier,
    build,
    check_input,
    known_networks,
)
from container.training.output.export import export_onnx
from tests.families import FAMILIES
from tests.served import answers

# Their sizes are computed from tensor values, which meta tensors lack; they are quick to build.
REGNETS = ("regnet_x_400mf", "regnet_y_400mf", "regnet_y_800mf")
ON_META = [name for name in known_networks() if not name.startswith("regnet")]


@pytest.mark.parametrize("name", [*ON_META, *REGNETS])
def test_every_torchvision_network_gets_a_new_head(name: str) -> None:
    with torch.device("cpu" if name in REGNETS else "meta"):
        network = build(name, 7)
        classifier = Classifier(network.module).eval()
        logits = classifier(torch.zeros(2, 3, 224, 224))

    assert logits.shape == (2, 7)
    assert len(network.heads) == 1


def test_unknown_network_is_rejected_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"unknown network 'resnet'; known are small, alexnet, "):
        build("resnet", 3)


def test_vision_transformer_is_built_for_the_image_size() -> None:
    with torch.device("meta"):
        assert build("vit_b_32", 3, 96).module(torch.zeros(2, 3, 96, 96)).shape == (2, 3)
    with pytest.raises(UserError, match="vit_b_32 does not accept images of 100 x 100 pixels"):
        build("vit_b_32", 3, 100)


def test_logits_are_averaged_over_flips_in_evaluation() -> None:
    network = build("squeezenet1_1", 3)
    nn.init.normal_(network.module.get_submodule("classifier.1.1").weight)  # type: ignore[arg-type]
    flipping = Classifier(network.module, [(3,), (2,), (2, 3)]).eval()
    plain = Classifier(network.module).eval()
    images = torch.rand(2, 3, 40, 40) * 255

    views = [images, images.flip(3), images.flip(2), images.flip(2).flip(3)]
    expected = torch.stack([plain(view) for view in views]).mean(dim=0)
    torch.testing.assert_close(flipping(images), expected)
    torch.testing.assert_close(flipping(images.flip(3)), expected)
    assert not torch.allclose(plain(images), expected)


def test_detectors_and_segmenters_are_rejected() -> None:
    names = known_networks()

    assert {"small", "resnet18", "vit_b_16"} <= set(names)
    assert not [name for name in names if "rcnn" in name or "deeplab" in name or "quant" in name]


def test_a_thousand_classes_are_supported() -> None:
    with torch.device("meta"):
        network = build("mobilenet_v3_small", 1000)

    assert network.heads == ("classifier.3",)


@pytest.mark.parametrize(
    ("name", "images", "image_size"),
    [(SMALL, 2, 16), ("resnet18", 2, 32), ("inception_v3", 4, 224), ("vit_b_16", 2, 224)],
)
def test_supported_batches_are_accepted(name: str, images: int, image_size: int) -> None:
    network = build(name, 3)
    before = {k: v.clone() for k, v in network.module.state_dict().items()}

    check_input(network, images, image_size)

    # Batch normalization has seen no batch.
    assert all(torch.equal(before[k], v) for k, v in network.module.state_dict().items())


@pytest.mark.parametrize(
    ("name", "images", "image_size", "reason"),
    [
        ("vgg11", 8, 16, "Output size is too small"),
        ("vit_b_16", 8, 64, "Wrong image height! Expected 224 but got 64!"),
        ("resnet18", 1, 32, "Expected more than 1 value per channel when training"),
    ],
)
def test_unsupported_batches_are_rejected(
    name: str, images: int, image_size: int, reason: str
) -> None:
    network = build(name, 3)

    with pytest.raises(UserError, match=f"^{name} cannot learn from batches of .*{reason}"):
        check_input(network, images, image_size)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_exported_network_equals_torch_for_any_batch_size(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    image_size = FAMILIES[name]
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (8, 1, 1, 3)) + random.integers(
        -60, 60, (8, image_size, image_size, 3)
    )
    pixels = np.clip(pixels, 0, 255).astype(np.uint8)
    network = build(name, 5)
    classifier = _awakened(network, torch.from_numpy(pixels))
    served = ServedClassifier(classifier, temperature=1.3).eval()

    export_onnx(served, image_size, tmp_path / "model.onnx")

    with torch.inference_mode():
        expected = served(torch.from_numpy(pixels)).numpy()
    # The images have different probabilities.
    assert np.ptp(expected, axis=0).max() > 0.05
    for count in (1, 3):
        found = answers(tmp_path / "model.onnx", pixels[:count])
        assert found.shape == (count, 5)
        assert np.abs(found - expected[:count]).max() < 1e-3


@torch.no_grad()
def _awakened(network: Network, pixels: torch.Tensor) -> Classifier:
    """Give a network with random weights the statistics and contrasts of a trained network."""
    classifier = Classifier(network.module).train()
    for module in classifier.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
        elif isinstance(module, nn.Dropout):
            module.p = 0.0
    images = pixels.permute(0, 3, 1, 2).float()
    classifier(images)
    classifier.eval()
    for head in network.heads:
        for layer in network.module.get_submodule(head).modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight)
                logits = classifier(images)
                spread = logits.std(dim=0).mean()
                layer.weight.div_(spread)
                layer.bias.copy_((layer.bias - logits.mean(dim=0)) / spread)
    return classifier
