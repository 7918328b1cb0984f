"""An image, its super-pixels, and what is left of it when some of them are hidden."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from skimage.segmentation import slic

from container.classifier.errors import UserError
from container.classifier.preprocessing import Pixels, decode_image
from image_classifier.explainer.coalitions import Members

# Of the shorter side, in pixels. Networks see less, and a telephone's photograph would be sent
# hundreds of times with 12 megapixels each.
MAX_SIDE = 512

# Larger files are no photographs.
MAX_FILE_BYTES = 100 * 2**20

Segments = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SegmentedImage:
    """What is explained."""

    pixels: Pixels
    """uint8 of shape (H, W, 3)."""

    segments: Segments
    """Of shape (H, W): the number of each pixel's super-pixel, 0 to M - 1."""

    baseline: Pixels
    """uint8 of shape (H, W, 3): what is shown where super-pixels are hidden."""

    @property
    def count(self) -> int:
        """Return M."""
        return int(self.segments.max()) + 1

    def masked(self, members: Members) -> Pixels:
        """Return the images (S, H, W, 3) that show the coalitions' members (S, M) alone."""
        shown = members[:, self.segments][..., None]
        return np.where(shown, self.pixels, self.baseline)


def read(path: Path) -> Pixels:
    """Read an image as the classifier does, upright RGB; a large one is made smaller.

    Raises:
        UserError: it cannot be read.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            message = f"the file has more than {MAX_FILE_BYTES} bytes"
            raise UserError(message)
        image = decode_image(path.read_bytes(), 2 * MAX_SIDE)
    except OSError as error:
        message = f"the file cannot be read: {error.strerror}"
        raise UserError(message) from error
    shorter = min(image.size)
    if shorter > MAX_SIDE:
        scale = MAX_SIDE / shorter
        size = (math.ceil(image.width * scale), math.ceil(image.height * scale))
        image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    return np.asarray(image)


def superpixels(pixels: Pixels, count: int, compactness: float) -> Segments:
    """Divide an image into about `count` super-pixels by SLIC (Achanta et al. 2012).

    Returns:
        Numbers of shape (H, W), from 0 without a gap; fewer than `count` where there is little to
        tell apart.
    """
    found = slic(pixels, n_segments=count, compactness=compactness, start_label=0)
    _, numbers = np.unique(found, return_inverse=True)
    return numbers.reshape(found.shape).astype(np.int64)


def noise(pixels: Pixels, seed: int) -> Pixels:
    """Return white noise of an image's shape: Clarify's baseline, unless another is given."""
    return np.random.default_rng(seed).integers(0, 256, pixels.shape, np.uint8)


def resized(pixels: Pixels, like: Pixels) -> Pixels:
    """Return an image in the size of another."""
    height, width = like.shape[:2]
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image)
