"""Random augmentation of whole batches on the device.

Flips and quarter turns are off by default, because they can change the class: a mirrored left hand
is a right hand.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from container.training.hyperparameters import Hyperparameters

# The value of cutout's square, of 0 to 255.
GRAY = 127.5


class Draws(NamedTuple):
    """Random parameters for each of N images."""

    affine: Tensor
    """(N, 2, 3): affine maps from output to input coordinates."""

    gain: Tensor
    """(N, 3): contrast of each color channel."""

    brightness: Tensor
    """(N,): added to every pixel."""

    square: Tensor
    """(N, 2): center of cutout's square, as fractions of the side."""

    def of(self, indices: npt.NDArray[np.int64]) -> "Draws":
        """Return the parameters of some of the images."""
        return Draws(*(values[indices] for values in self))


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """The ranges of the random changes."""

    max_rotation: float = 0.0
    """In radians, in either direction."""

    max_zoom: float = 0.0
    max_shift: float = 0.0
    """A fraction of the image's side, as are zoom and cutout."""

    max_light: float = 0.0
    horizontal_flip: bool = False
    vertical_flip: bool = False
    quarter_turns: bool = False
    cutout: float = 0.0
    """Side of the gray square."""

    @classmethod
    def of(cls, hyperparameters: Hyperparameters) -> Self:
        """Return the augmentation of a job."""
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
        """Draw the parameters of `count` images.

        The number of random numbers does not depend on the device or on the enabled changes.
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
        """Return augmented images (N, 3, H, W) of 0 to 255."""
        device = images.device
        if self._moves:
            grid = _grid(draws.affine.to(device, non_blocking=True), images)
            # An empty border would show the network how an image was moved.
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
            images = images.masked_fill(_square_mask(square, self.cutout, images), GRAY)
        return images

    @property
    def _moves(self) -> bool:
        small = self.max_rotation or self.max_zoom or self.max_shift
        return bool(small or self.horizontal_flip or self.vertical_flip or self.quarter_turns)


@dataclass(frozen=True, slots=True)
class Blend:
    """Parameters that combine each image of a batch with the one before it in the batch."""

    weight: Tensor
    """(N,): fraction of the target probability that the image keeps."""

    box: Tensor | None
    """(N, 2): center of the pasted square, as fractions of the side; None for mixup."""

    def of(self, indices: npt.NDArray[np.int64]) -> Self:
        """Return the parameters of some of the images."""
        return type(self)(self.weight[indices], None if self.box is None else self.box[indices])

    def __call__(self, images: Tensor, others: Tensor) -> Tensor:
        """Return images (N, 3, H, W) combined with `others`, of the same shape."""
        weight = self.weight.to(images.device, non_blocking=True)[:, None, None, None]
        if self.box is None:
            return images * weight + others * (1 - weight)
        box = self.box.to(images.device, non_blocking=True)
        return torch.where(_square_mask(box, (1 - weight).sqrt(), images), others, images)


def draw_blend(
    count: int, mixup: float, cutmix: float, random: np.random.Generator
) -> Blend | None:
    """Draw the parameters of mixup (Zhang et al. 2017) or CutMix (Yun et al. 2019) for N images.

    `mixup` and `cutmix` are the alphas of the beta distribution of the images' weights, 0 for
    neither. If both are set, one is chosen at random.
    """
    alphas = [(alpha, pastes) for alpha, pastes in ((mixup, False), (cutmix, True)) if alpha > 0]
    if not alphas:
        return None
    alpha, pastes = alphas[random.integers(len(alphas))]
    weight = random.beta(alpha, alpha, count)
    if not pastes:
        return Blend(_float32(weight), None)
    # The square is within the image, so that its area is the other image's weight.
    side = np.sqrt(1 - weight)[:, None]
    box = side / 2 + random.random((count, 2)) * (1 - side)
    return Blend(_float32(weight), _float32(box))


def _grid(affine: Tensor, images: Tensor) -> Tensor:
    """Return the sampling grid (N, H, W, 2) of affine maps (N, 2, 3)."""
    height, width = images.shape[2:]
    half = torch.tensor([width, height], device=images.device) / 2
    # Shifts by whole pixels keep images sharp if there is no rotation and no zoom.
    shift = torch.round(affine[:, :, 2] * half) / half
    x, y = ((_centers(side, images.device) * 2 - 1) for side in (width, height))
    # affine_grid multiplies matrices of three columns, which takes several times as long.
    rows = y[:, None] * affine[:, None, :, 1] + shift[:, None]
    return x[:, None] * affine[:, None, None, :, 0] + rows[:, :, None]


def _square_mask(center: Tensor, side: Tensor | float, images: Tensor) -> Tensor:
    """Return (N, 1, H, W): whether a pixel is in its image's square, given in fractions."""
    height, width = images.shape[2:]
    y, x = _centers(height, images.device), _centers(width, images.device)
    distance_y = (y[None, :, None] - center[:, 1, None, None]).abs()
    distance_x = (x[None, None, :] - center[:, 0, None, None]).abs()
    return torch.maximum(distance_y, distance_x)[:, None] < side / 2


def _centers(side: int, device: torch.device) -> Tensor:
    """Return the centers of a row's pixels, as fractions of the side."""
    return (torch.arange(side, device=device) + 0.5) / side


def _float32(values: npt.NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))
