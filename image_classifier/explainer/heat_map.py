"""Explanations as images, in Clarify's colors: blue raises a class's score, red lowers it."""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image
from skimage.segmentation import find_boundaries

from container.classifier.preprocessing import Pixels
from image_classifier.explainer.image import Segments

BLUE, RED = (20, 90, 230), (220, 30, 30)
YELLOW = (255, 220, 0)

# Of the strongest super-pixel's color; the image is to be seen through it.
STRENGTH = 0.8


def heat_map(
    pixels: Pixels, segments: Segments, values: npt.NDArray[np.float64], strongest: float
) -> Pixels:
    """Color super-pixels by their Shapley values (M,); at `strongest` no color gets deeper.

    Returns:
        uint8 of shape (H, W, 3).
    """
    gray = np.asarray(Image.fromarray(pixels).convert("L"), dtype=float)[..., None]
    # Paler, so that colors stand out.
    paper = 0.55 * gray + 0.45 * 255
    share = np.abs(values) / strongest if strongest > 0 else np.zeros(len(values))
    opacity = STRENGTH * share.clip(0, 1)[segments][..., None]
    colors = np.where(values[:, None] > 0, BLUE, RED)[segments]
    mixed = (1 - opacity) * paper + opacity * colors
    mixed[find_boundaries(segments, mode="inner")] *= 0.85
    return mixed.round().astype(np.uint8)


def outlined(pixels: Pixels, segments: Segments) -> Pixels:
    """Draw the super-pixels' borders into an image."""
    drawn = pixels.copy()
    drawn[find_boundaries(segments, mode="inner")] = YELLOW
    return drawn


def jpeg(pixels: Pixels, side: int | None = None) -> bytes:
    """Return a JPEG file, of at most `side` pixels in height and width where that is given."""
    image = Image.fromarray(pixels)
    if side is not None:
        image.thumbnail((side, side))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=88)
    return file.getvalue()
