"""Draws images whose class depends only on a red patch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from container.classifier.preprocessing import Pixels

CLASS_NAMES = ("none", "patch")

# Side lengths of an image and of its patch, in pixels.
SIDE, PATCH = 64, 16

RED = (215, 25, 30)


def draw(number: int) -> tuple[Pixels, npt.NDArray[np.bool_]]:
    """Return an image (SIDE, SIDE, 3) with a red patch, and its mask (SIDE, SIDE)."""
    random = np.random.default_rng(number)
    # Blue and green shapes, none of them red.
    coarse = random.integers(40, 220, (5, 5, 3), np.uint8)
    coarse[..., 0] = coarse[..., 1:].min(axis=2) // 2
    shapes = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pixels = np.array(shapes)
    top, left = random.integers(0, SIDE - PATCH, 2)
    where = np.zeros((SIDE, SIDE), dtype=bool)
    where[top : top + PATCH, left : left + PATCH] = True
    pixels[where] = RED
    return pixels, where


def write_images(folder: Path, count: int) -> Sequence[Path]:
    """Write images with a patch into the folder of their class."""
    (folder / "patch").mkdir(parents=True)
    paths = [folder / "patch" / f"{number:02}.png" for number in range(count)]
    for number, path in enumerate(paths):
        Image.fromarray(draw(number)[0]).save(path)
    return paths


def is_right(
    values: npt.NDArray[np.float64],
    segments: npt.NDArray[np.int64],
    where: npt.NDArray[np.bool_],
) -> bool:
    """Return whether the values (M,) of superpixels (H, W) for the class `patch` name the patch.

    The highest is on the patch for the most part, and no superpixel without a pixel of the patch
    has a tenth of its value.
    """
    best = int(values.argmax())
    others = np.delete(np.abs(values), np.unique(segments[where]))
    is_on_it = bool(where[segments == best].mean() > 0.5)
    return is_on_it and not (others > values[best] / 10).any()
