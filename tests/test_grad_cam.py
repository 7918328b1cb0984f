"""Grad-CAM heat maps."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from container.classifier.preprocessing import Pixels
from container.networks.network import Classifier, build
from container.training.output.grad_cam import heat_maps


class Corners(nn.Module):
    """Predict class 0 for light on the left, 1 for light on the right, with frozen weights."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 1, 4, stride=4)
        self.relu = nn.ReLU(inplace=True)
        nn.init.ones_(self.convolution.weight)
        nn.init.zeros_(self.convolution.bias)  # type: ignore[arg-type]
        self.requires_grad_(requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        features = self.relu(self.convolution(images))
        left, right = features.chunk(2, dim=3)
        sides = [left.mean(dim=(1, 2, 3)), right.mean(dim=(1, 2, 3))]
        return torch.stack(sides, dim=1)


def spotted(*places: tuple[int, int], size: int = 32) -> Pixels:
    pixels = np.zeros((len(places), size, size, 3), np.uint8)
    for image, (row, column) in zip(pixels, places, strict=True):
        image[row : row + 8, column : column + 8] = 255
    return pixels


def test_map_is_highest_at_the_decisive_pixels() -> None:
    places = [(2, 3), (20, 22), (4, 20), (20, 2), (12, 12), (0, 0), (24, 24), (8, 0), (0, 24)]

    maps = heat_maps(Classifier(Corners()), spotted(*places), [0] * len(places))

    assert maps is not None
    assert maps.shape == (9, 32, 32)
    for found, (row, column) in zip(maps, places, strict=True):
        top, left = np.unravel_index(found.argmax(), found.shape)
        assert row - 3 <= top < row + 11
        assert column - 3 <= left < column + 11
        assert found.max() == pytest.approx(1)
        assert found.min() >= 0


def test_test_time_flips_do_not_mirror_the_map() -> None:
    plain, flipping = Classifier(Corners()), Classifier(Corners(), flips=((3,),))

    one, other = (heat_maps(each, spotted((4, 4)), [0]) for each in (plain, flipping))

    assert one is not None
    assert other is not None
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["small", "resnet18", "squeezenet1_0", "densenet121", "swin_t"])
def test_networks_of_every_family_have_a_map(name: str) -> None:
    torch.manual_seed(0)
    classifier = Classifier(build(name, 3, 64).module)
    for parameter in classifier.parameters():
        # New heads are zero, which would make all gradients zero.
        if not parameter.any():
            nn.init.normal_(parameter)

    maps = heat_maps(classifier, spotted((10, 10), (40, 40), size=64), [0, 2])

    assert maps is not None
    assert maps.shape == (2, 64, 64)
    assert np.isfinite(maps).all()
    assert not list(filter(None, (module._forward_hooks for module in classifier.modules())))


@pytest.mark.slow
def test_network_of_tokens_has_no_map() -> None:
    assert (
        heat_maps(Classifier(build("vit_b_32", 3, 64).module), spotted((1, 1), size=64), [0])
        is None
    )
