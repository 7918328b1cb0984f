"""An image, its superpixels, and the same image with some of them replaced by a baseline."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image
from skimage.segmentation import slic

from container.classifier.errors import UserError
from container.classifier.preprocessing import Pixels, decode_image
from image_classifier.explainer.analysis import ImageConfig
from image_classifier.explainer.coalitions import Coalitions

# Length of the shorter side in pixels. Networks have smaller inputs, and every evaluation sends
# the whole image.
MAX_SIDE = 512

# No photograph is larger.
MAX_FILE_BYTES = 100 * 2**20

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


def superpixels(pixels: Pixels, config: ImageConfig) -> Segments:
    """Divide an image into superpixels by SLIC (Achanta et al. 2012).

    Returns:
        Numbers of shape (H, W), from 0 without gaps; an image with few edges can have fewer
        superpixels than configured.
    """
    labels = slic(
        pixels,
        n_segments=config.num_segments,
        compactness=config.segment_compactness,
        start_label=0,
    )
    _, numbers = np.unique(labels, return_inverse=True)
    return numbers.reshape(labels.shape).astype(np.int64)


def noise(pixels: Pixels, seed: int) -> Pixels:
    """Return white noise of an image's shape: Clarify's default baseline."""
    return np.random.default_rng(seed).integers(0, 256, pixels.shape, np.uint8)


def resize_like(pixels: Pixels, other: Pixels) -> Pixels:
    """Resize an image to the size of another."""
    height, width = other.shape[:2]
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image)
