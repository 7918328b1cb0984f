"""Random changes of whole batches, on the device, none of which changes an image's class.

Flips and quarter turns are off unless asked for: a mirrored left hand is a right hand.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from container.training.hyperparameters import Hyperparameters

# What cutout puts in a square's place, of 0 to 255.
GRAY = 127.5


@dataclass(frozen=True, slots=True)
class Draws:
    """What chance decided for each of N images."""

    affine: Tensor
    """(N, 2, 3): where each pixel of the result comes from."""

    gain: Tensor
    """(N, 3): contrast of each color."""

    brightness: Tensor
    """(N,): added to every pixel."""

    square: Tensor
    """(N, 2): center of the square that cutout covers, as shares of the side."""

    def of(self, places: npt.NDArray[np.int64]) -> Self:
        """Return the draws for some of the images."""
        return type(self)(
            self.affine[places], self.gain[places], self.brightness[places], self.square[places]
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """Which changes are made."""

    max_rotation: float = 0.0
    """In radians."""

    max_zoom: float = 0.0
    max_shift: float = 0.0
    """As shares of the image's side, as are zoom and cutout."""

    max_light: float = 0.0
    horizontal_flip: bool = False
    vertical_flip: bool = False
    quarter_turns: bool = False
    cutout: float = 0.0
    """Side of the covered square."""

    @classmethod
    def of(cls, hyperparameters: Hyperparameters) -> Self:
        """Return what the hyperparameters ask for."""
        amount = 1.0 if hyperparameters.augment else 0.0
        return cls(
            max_rotation=amount * math.radians(hyperparameters.max_rotation),
            max_zoom=amount * hyperparameters.max_zoom,
            max_shift=amount * hyperparameters.max_shift,
            max_light=amount * hyperparameters.max_light,
            horizontal_flip=hyperparameters.horizontal_flip,
            vertical_flip=hyperparameters.vertical_flip,
            quarter_turns=hyperparameters.quarter_turns,
            cutout=hyperparameters.cutout,
        )

    def draw(self, count: int, random: np.random.Generator) -> Draws:
        """Draw the changes of `count` images.

        Always the same number of draws: equal on every device, and whatever is switched on.
        """
        angle, zoom, shift_x, shift_y, brightness, contrast, *color = random.uniform(
            -1, 1, (9, count)
        )
        light = contrast[:, None] + np.stack(color, axis=1) / 4
        angle, scale = angle * self.max_rotation, 1 + zoom * self.max_zoom
        turns, mirrors = random.integers(4, size=count), random.integers(2, size=(2, count))
        if self.quarter_turns:
            angle = angle + turns * (math.pi / 2)
        across, upright = (
            1 - 2.0 * mirror * allowed
            for mirror, allowed in zip(
                mirrors, (self.horizontal_flip, self.vertical_flip), strict=True
            )
        )
        cosine, sine = np.cos(angle) * scale, np.sin(angle) * scale
        # An image's side is 2 long.
        shift_x, shift_y = shift_x * 2 * self.max_shift, shift_y * 2 * self.max_shift
        rows = [cosine * across, -sine * upright, shift_x, sine * across, cosine * upright, shift_y]
        affine = np.stack(rows, axis=1).reshape(count, 2, 3)
        square = random.random((count, 2))
        gain, brightness = 1 + self.max_light * light, self.max_light * brightness / 2 * 255
        return Draws(*map(_float32, (affine, gain, brightness, square)))

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Return changed images (N, 3, H, W) of 0 to 255."""
        device = images.device
        if self._moves:
            grid = _grid(draws.affine.to(device, non_blocking=True), images)
            # Reflection: an empty border would tell the network how an image was moved.
            images = torch.nn.functional.grid_sample(
                images, grid, padding_mode="reflection", align_corners=False
            )
        if self.max_light:
            gain = draws.gain.to(device, non_blocking=True)[:, :, None, None]
            brightness = draws.brightness.to(device, non_blocking=True)[:, None, None, None]
            mean = images.mean(dim=(1, 2, 3), keepdim=True)
            images = ((images - mean) * gain + mean + brightness).clamp(0, 255)
        if self.cutout:
            square = draws.square.to(device, non_blocking=True)
            images = images.masked_fill(_inside(square, self.cutout, images), GRAY)
        return images

    @property
    def _moves(self) -> bool:
        small = self.max_rotation or self.max_zoom or self.max_shift
        return bool(small or self.horizontal_flip or self.vertical_flip or self.quarter_turns)


@dataclass(frozen=True, slots=True)
class Blend:
    """Each image of a batch together with the one that comes before it in the batch."""

    share: Tensor
    """(N,): of the target probability that stays with the image itself."""

    box: Tensor | None
    """(N, 2): center of the pasted part, as shares of the side; None: the whole is blended."""

    def of(self, places: npt.NDArray[np.int64]) -> Self:
        """Return what concerns some of the images."""
        return type(self)(self.share[places], None if self.box is None else self.box[places])

    def __call__(self, images: Tensor, others: Tensor) -> Tensor:
        """Return images (N, 3, H, W) blended with `others`, of the same shape."""
        share = self.share.to(images.device, non_blocking=True)[:, None, None, None]
        if self.box is None:
            return images * share + others * (1 - share)
        box = self.box.to(images.device, non_blocking=True)
        return torch.where(_inside(box, (1 - share).sqrt(), images), others, images)


def draw_blend(
    count: int, mixup: float, cutmix: float, random: np.random.Generator
) -> Blend | None:
    """Draw mixup (Zhang et al. 2017) or CutMix (Yun et al. 2019) of `count` images.

    Args:
        count: N.
        mixup: Alpha of the beta distribution of the shares; 0: no mixup.
        cutmix: The same for CutMix. With both, chance takes one.
        random: Where chance comes from.
    """
    alphas = [(alpha, pastes) for alpha, pastes in ((mixup, False), (cutmix, True)) if alpha > 0]
    if not alphas:
        return None
    alpha, pastes = alphas[random.integers(len(alphas))]
    share = random.beta(alpha, alpha, count)
    if not pastes:
        return Blend(_float32(share), None)
    # Of a part that lies within the image: what is pasted is what counts.
    side = np.sqrt(1 - share)[:, None]
    box = side / 2 + random.random((count, 2)) * (1 - side)
    return Blend(_float32(share), _float32(box))


def _grid(affine: Tensor, images: Tensor) -> Tensor:
    """Return (N, H, W, 2): where each pixel comes from, by affine (N, 2, 3)."""
    height, width = images.shape[2:]
    half = torch.tensor([width, height], device=images.device) / 2
    # By whole pixels: without rotation and zoom an image stays as sharp as it is.
    shift = torch.round(affine[:, :, 2] * half) / half
    x, y = ((_centers(side, images.device) * 2 - 1) for side in (width, height))
    # affine_grid would multiply matrices of three columns, which takes several times as long.
    rows = y[:, None] * affine[:, None, :, 1] + shift[:, None]
    return x[:, None] * affine[:, None, None, :, 0] + rows[:, :, None]


def _inside(center: Tensor, side: Tensor | float, images: Tensor) -> Tensor:
    """Return (N, 1, H, W): whether a pixel lies in its image's square; all in shares."""
    height, width = images.shape[2:]
    y, x = _centers(height, images.device), _centers(width, images.device)
    distance_y = (y[None, :, None] - center[:, 1, None, None]).abs()
    distance_x = (x[None, None, :] - center[:, 0, None, None]).abs()
    return torch.maximum(distance_y, distance_x)[:, None] < side / 2


def _centers(side: int, device: torch.device) -> Tensor:
    """Return where a row's pixels have their centers, as shares of the side."""
    return (torch.arange(side, device=device) + 0.5) / side


def _float32(values: npt.NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))
