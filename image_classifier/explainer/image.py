"""An image and its superpixels: masked by a baseline, or colored by their Shapley values."""

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image
from skimage.segmentation import find_boundaries, slic

from container.classifier.errors import UserError
from container.classifier.preprocessing import Pixels, decode_image
from container.classifier.report_page import LOWERS, RAISES
from image_classifier.explainer.analysis import Shap
from image_classifier.explainer.shapley import Coalitions, Values

# Length of the shorter side in pixels. Networks have smaller inputs, and every evaluation sends
# the whole image.
MAX_SIDE = 512

# No photograph is larger.
MAX_FILE_BYTES = 100 * 2**20

# From Clarify's default, with superpixels along edges, to squares.
COMPACTNESSES = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)

# Fraction by which the number of superpixels may differ.
NEAR = 0.2

YELLOW = (255, 220, 0)

# Below 1, so that the image stays visible under the strongest color.
MAX_OPACITY = 0.8

Segments: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SegmentedImage:
    """An image that is divided into superpixels."""

    pixels: Pixels
    """uint8 of shape (H, W, 3)."""

    segments: Segments
    """Of shape (H, W): the number of each pixel's superpixel, 0 to M - 1."""

    baseline: Pixels
    """uint8 of shape (H, W, 3): replaces hidden superpixels."""

    @property
    def segment_count(self) -> int:
        """The number of superpixels, M."""
        return int(self.segments.max()) + 1

    def mask(self, coalitions: Coalitions) -> Pixels:
        """Return images (S, H, W, 3), in each of which one coalition of (S, M) is visible."""
        visible = coalitions[:, self.segments][..., None]
        return np.where(visible, self.pixels, self.baseline)

    def outlines(self) -> Pixels:
        """Return the image with the borders of its superpixels."""
        drawn = self.pixels.copy()
        drawn[find_boundaries(self.segments, mode="inner")] = YELLOW
        return drawn

    def heat_map(self, values: Values, max_value: float) -> Pixels:
        """Color superpixels by their Shapley values (M,): red raises the score, blue lowers it.

        `max_value` gets the strongest color.

        Returns:
            uint8 of shape (H, W, 3).
        """
        gray = np.asarray(Image.fromarray(self.pixels).convert("L"), dtype=float)[..., None]
        # Paler, so that colors stand out.
        background = 0.55 * gray + 0.45 * 255
        strength = np.abs(values) / max_value if max_value > 0 else np.zeros(len(values))
        opacity = MAX_OPACITY * strength.clip(0, 1)[self.segments][..., None]
        colors = np.where(values[:, None] > 0, RAISES, LOWERS)[self.segments]
        mixed = (1 - opacity) * background + opacity * colors
        mixed[find_boundaries(self.segments, mode="inner")] *= 0.85
        return mixed.round().astype(np.uint8)


def read(path: Path) -> Pixels:
    """Read an image as the classifier does, upright RGB, and shrink it if it is large.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UserError(f"the file has more than {MAX_FILE_BYTES} bytes")
        image = decode_image(path.read_bytes(), 2 * MAX_SIDE)
    except OSError as error:
        raise UserError(f"the file cannot be read: {error.strerror}") from error
    shorter = min(image.size)
    if shorter > MAX_SIDE:
        scale = MAX_SIDE / shorter
        size = (math.ceil(image.width * scale), math.ceil(image.height * scale))
        image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    return np.asarray(image)


def segment(pixels: Pixels, shap: Shap, baseline: Pixels | None = None) -> SegmentedImage:
    """Divide an image into superpixels by SLIC (Achanta et al. 2012).

    With a compactness of the configuration, an image with few edges can have far fewer superpixels
    than configured: SLIC joins its small regions to others. Without a baseline, which is resized to
    the image, white noise replaces hidden superpixels: Clarify's default.
    """
    config = shap.image_config
    if config.segment_compactness is None:
        segments = _with_count(pixels, config.num_segments, (shap.num_samples - 2) // 2)
    else:
        segments = _slic(pixels, config.num_segments, config.segment_compactness)
    if baseline is None:
        hidden = np.random.default_rng(shap.seed).integers(0, 256, pixels.shape, np.uint8)
    else:
        height, width = pixels.shape[:2]
        resized = Image.fromarray(baseline).resize((width, height), Image.Resampling.BILINEAR)
        hidden = np.asarray(resized)
    return SegmentedImage(pixels, segments, hidden)


def _with_count(pixels: Pixels, count: int, most: int) -> Segments:
    """Return about `count` superpixels, which follow the edges as closely as their number allows.

    The first compactness with a number near `count`, or else the one with the nearest number. The
    samples suffice for `most` superpixels.
    """
    found: list[tuple[tuple[bool, float], Segments]] = []
    for compactness in COMPACTNESSES:
        segments = _slic(pixels, count, compactness)
        number = int(segments.max()) + 1
        distance = number > most, abs(number - count) / count
        found.append((distance, segments))
        if distance <= (False, NEAR):
            break
    return min(found, key=lambda pair: pair[0])[1]


def _slic(pixels: Pixels, count: int, compactness: float) -> Segments:
    labels = slic(pixels, n_segments=count, compactness=compactness, start_label=0)
    # Without gaps.
    _, numbers = np.unique(labels, return_inverse=True)
    return numbers.reshape(labels.shape).astype(np.int64)


def encode_jpeg(pixels: Pixels, side: int | None = None) -> bytes:
    """Return a JPEG file, shrunk to at most `side` pixels in height and width."""
    image = Image.fromarray(pixels)
    if side is not None:
        image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()
