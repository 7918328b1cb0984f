"""Heat maps in Clarify's colors: blue raises a class's score, red lowers it."""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image
from skimage.segmentation import find_boundaries

from container.classifier.preprocessing import Pixels
from image_classifier.explainer.image import Segments

BLUE, RED = (20, 90, 230), (220, 30, 30)
YELLOW = (255, 220, 0)

# Below 1, so that the image stays visible under the strongest color.
MAX_OPACITY = 0.8


def heat_map(
    pixels: Pixels, segments: Segments, values: npt.NDArray[np.float64], max_value: float
) -> Pixels:
    """Color superpixels by their Shapley values (M,); `max_value` gets the strongest color.

    Returns:
        uint8 of shape (H, W, 3).
    """
    gray = np.asarray(Image.fromarray(pixels).convert("L"), dtype=float)[..., None]
    # Paler, so that colors stand out.
    background = 0.55 * gray + 0.45 * 255
    share = np.abs(values) / max_value if max_value > 0 else np.zeros(len(values))
    opacity = MAX_OPACITY * share.clip(0, 1)[segments][..., None]
    colors = np.where(values[:, None] > 0, BLUE, RED)[segments]
    mixed = (1 - opacity) * background + opacity * colors
    mixed[find_boundaries(segments, mode="inner")] *= 0.85
    return mixed.round().astype(np.uint8)


def draw_outlines(pixels: Pixels, segments: Segments) -> Pixels:
    """Draw the superpixels' borders into an image."""
    drawn = pixels.copy()
    drawn[find_boundaries(segments, mode="inner")] = YELLOW
    return drawn


def encode_jpeg(pixels: Pixels, side: int | None = None) -> bytes:
    """Return a JPEG file, shrunk to at most `side` pixels in height and width."""
    image = Image.fromarray(pixels)
    if side is not None:
        image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()
