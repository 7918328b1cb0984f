"""Random changes of whole batches, on the device, none of which changes a picture's class.

Flips are off unless asked for: a mirrored left hand is a right hand.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MAX_ROTATION = math.radians(10)
MAX_SCALE = 0.1
MAX_SHIFT = 0.08
MAX_BRIGHTNESS = 25.0
MAX_CONTRAST = 0.2

# What names of sides look like: "left", "hand_right", "3L" and "3R".
_SIDES = ((re.compile(r"left", re.IGNORECASE), "right"), (re.compile(r"(?<![a-z])L$"), "R"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """Which changes are made."""

    geometry_and_light: bool
    horizontal_flip: bool
    vertical_flip: bool

    def __call__(self, images: Tensor) -> Tensor:
        """Return changed images (N, 3, H, W) of 0 to 255, drawn from torch's random state."""
        if not (self.geometry_and_light or self.horizontal_flip or self.vertical_flip):
            return images
        grid = torch.nn.functional.affine_grid(
            self._affine(len(images)).to(images.device), list(images.shape), align_corners=False
        )
        # Reflection: an empty border would tell the network how a picture was moved.
        images = torch.nn.functional.grid_sample(
            images, grid, padding_mode="reflection", align_corners=False
        )
        return _light(images) if self.geometry_and_light else images

    def _affine(self, count: int) -> Tensor:
        """Return (N, 2, 3): where each pixel of the result comes from."""
        angle = _uniform(count) * MAX_ROTATION
        scale = 1 + _uniform(count) * MAX_SCALE
        shift_x, shift_y = _uniform(count) * 2 * MAX_SHIFT, _uniform(count) * 2 * MAX_SHIFT
        if not self.geometry_and_light:
            angle, scale = torch.zeros(count), torch.ones(count)
            shift_x, shift_y = torch.zeros(count), torch.zeros(count)
        across = _signs(count) if self.horizontal_flip else torch.ones(count)
        upright = _signs(count) if self.vertical_flip else torch.ones(count)
        cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
        rows = [cosine * across, -sine * upright, shift_x, sine * across, cosine * upright, shift_y]
        return torch.stack(rows, dim=1).view(count, 2, 3)


def mirrored_classes(class_names: Sequence[str]) -> list[tuple[str, str]]:
    """Return pairs of classes whose names tell left from right, such as 3L and 3R."""
    known = {name.lower(): name for name in class_names}
    pairs = []
    for name in class_names:
        for left, right in _SIDES:
            mirrored = known.get(left.sub(right, name).lower())
            if mirrored is not None and mirrored != name:
                pairs.append((name, mirrored))
    return pairs


def _light(images: Tensor) -> Tensor:
    count = len(images)
    device = images.device
    contrast = (1 + _uniform(count) * MAX_CONTRAST).view(-1, 1, 1, 1).to(device)
    brightness = (_uniform(count) * MAX_BRIGHTNESS).view(-1, 1, 1, 1).to(device)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return ((images - mean) * contrast + mean + brightness).clamp(0, 255)


def _uniform(count: int) -> Tensor:
    return torch.rand(count) * 2 - 1


def _signs(count: int) -> Tensor:
    return torch.randint(0, 2, (count,)) * 2.0 - 1
