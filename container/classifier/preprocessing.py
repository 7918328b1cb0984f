"""Bytes of an image to the pixels that a network sees: the one preprocessing there is.

Training's evaluation and serving both call it, so they see the same pixels, bit for bit. What
follows (scaling, mean, standard deviation) is the network's first layer.
"""

import io
import math
import re
import warnings
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from container.classifier.errors import ImageError, UserError

Pixels: TypeAlias = npt.NDArray[np.uint8]
Size: TypeAlias = tuple[float, float]

# Decoders for what people have; each one less is one less to attack.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")

# Above the 48 megapixels of a telephone's camera. Decoding takes 4 bytes a pixel for JPEG and 16
# for WebP, the most of all formats: 0.8 GB, which a serverless endpoint of 1 GB still has.
# Pillow reads the size from the header, before it decodes.
MAX_PIXELS = 50_000_000
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
warnings.simplefilter("error", Image.DecompressionBombWarning)

# Every scan of a progressive JPEG goes over all of its pixels. Encoders write about ten; a file of
# 200 KB with thousands would take minutes.
MAX_SCANS = 100

# Tables, profiles and the like: a large profile has a hundred. Pillow puts the parts of EXIF
# together in a time that grows with the square of their number.
MAX_SEGMENTS = 1000
START_OF_IMAGE, START_OF_SCAN, END_OF_IMAGE = b"\xff\xd8", b"\xda", b"\xd9"

# What has a length. Of others there are a stuffed 255 and restarts, which are within a scan, and
# those that Pillow or libjpeg skip by themselves.
MARKER = re.compile(rb"\xff([^\x00-\xbf\xc8\xd0-\xd8\xf0-\xfd\xff])", re.DOTALL)

# Pillow reads a header in pieces, and keeps an object for each of a GIF's comments: 25 MB of the
# shortest became 1.1 GB. A profile of 25 MB in a GIF has that many, in blocks of 255 bytes.
MAX_HEADER_PIECES = 200_000

# What libjpeg can leave out while it decodes.
SCALES = (8, 4, 2)

MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 16, 1024

# Pixels may be merged by whole numbers, which is fast, until the image is this many times as
# large as wanted. The rest is resampled.
REDUCING_GAP = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocessing:
    """How an image becomes the network's input; part of every artifact."""

    image_size: int
    """Height and width of the network's input, in pixels."""

    crop_fraction: float = 1.0
    """Share of the image's shorter side that the center crop keeps."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        is_whole = isinstance(self.image_size, int)
        if not (is_whole and MIN_IMAGE_SIZE <= self.image_size <= MAX_IMAGE_SIZE):
            message = (
                f"image_size must be {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE}, got {self.image_size!r}"
            )
            raise UserError(message)
        if not 0 < self.crop_fraction <= 1:
            message = f"crop_fraction must be above 0 and at most 1, got {self.crop_fraction}"
            raise UserError(message)


class _File(io.BytesIO):
    """An image's file, whose header may not have pieces without end."""

    pieces_left: float = MAX_HEADER_PIECES

    def read(self, size: int | None = -1, /) -> bytes:
        self.pieces_left -= 1
        if self.pieces_left < 0:
            message = f"the image's header has more than {MAX_HEADER_PIECES} pieces"
            raise ImageError(message)
        return super().read(size)


def decode_image(data: bytes, side: int | None = None) -> Image.Image:
    """Decode an image to upright RGB.

    EXIF orientation is applied, transparency is laid on white, 16-bit gray keeps its upper 8 bits,
    and of an animation the first frame counts.

    Args:
        data: The image's file.
        side: A JPEG's sides may be a half, a quarter or an eighth of what they are, but no shorter
            than this, in pixels: libjpeg then leaves out the work for details.

    Raises:
        ImageError: the bytes are no image of a known format, damaged, or too large.
    """
    return _decode(data, side)[0]


def _decode(data: bytes, side: int | None) -> tuple[Image.Image, Size]:
    """Do as `decode_image`; return besides how much of the pixels' width and height it fills."""
    try:
        # Before Pillow reads them.
        if data.startswith(START_OF_IMAGE):
            _check_segments(data)
        file = _File(data)
        with Image.open(file, formats=FORMATS) as image:
            file.pieces_left = math.inf
            scale = 1 if side is None else _scale(image, side)
            width, height = image.size
            if scale > 1:
                image.draft(None, (width // scale, height // scale))
            image.load()
            is_whole = width % scale == height % scale == 0
            upright = _to_rgb(_upright(image))
            return upright, upright.size if is_whole else (width / scale, height / scale)
    except UnidentifiedImageError:
        message = f"not an image of a known format ({', '.join(FORMATS)}), {len(data)} bytes"
        raise ImageError(message) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        message = f"the image has more than {MAX_PIXELS} pixels"
        raise ImageError(message) from None
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        # Pillow's decoders raise whatever a damaged file makes them run into.
        message = f"the image is damaged: {error}"
        raise ImageError(message) from error


def fit(image: Image.Image, settings: Preprocessing, size: Size | None = None) -> Pixels:
    """Crop the center square of an RGB image and resize it.

    Args:
        image: The image.
        settings: What the network wants.
        size: How much of the width and height it fills, from the left and the top, if not all.

    Returns:
        uint8 of shape (image_size, image_size, 3).
    """
    width, height = size or image.size
    side = min(width, height) * settings.crop_fraction
    left, top = (width - side) / 2, (height - side) / 2
    resized = image.resize(
        (settings.image_size, settings.image_size),
        Image.Resampling.BILINEAR,
        # One call crops and resizes: no pixel outside of the crop is computed.
        box=(left, top, left + side, top + side),
        reducing_gap=REDUCING_GAP,
    )
    return np.asarray(resized)


def preprocess(data: bytes, settings: Preprocessing) -> Pixels:
    """Decode an image and fit it to the network.

    Returns:
        uint8 of shape (image_size, image_size, 3).

    Raises:
        ImageError: as `decode_image`.
    """
    side = math.ceil(REDUCING_GAP * settings.image_size / settings.crop_fraction)
    image, size = _decode(data, side)
    return fit(image, settings, size)


def _check_segments(data: bytes) -> None:
    """Count a JPEG's segments and scans; what follows its end, such as a film, does not count.

    Raises:
        ImageError: there are too many.
    """
    segments, scans, place = 0, 0, len(START_OF_IMAGE)
    while match := MARKER.search(data, place):
        if match[1] == END_OF_IMAGE:
            if scans:
                return
            # Before there is an image, Pillow reads on.
            place = match.end()
            continue
        segments += 1
        scans += match[1] == START_OF_SCAN
        if scans > MAX_SCANS or segments > MAX_SEGMENTS:
            kind, most = ("scans", MAX_SCANS) if scans > MAX_SCANS else ("segments", MAX_SEGMENTS)
            message = f"the image has more than {most} {kind}"
            raise ImageError(message)
        # Each has its length first: what is within, such as a small image, is skipped.
        place = match.end() + max(2, int.from_bytes(data[match.end() : match.end() + 2]))


def _scale(image: Image.Image, side: int) -> int:
    """Return by how much a JPEG is decoded smaller.

    libjpeg rounds up: of 401 pixels a half are 201, of which the image fills 200.5. Of one that
    is still to be turned it might leave them empty on the left, so that is never rounded.
    """
    is_jpeg = image.format in {"JPEG", "MPO"}
    is_turned = is_jpeg and image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    for scale in SCALES if is_jpeg else ():
        is_whole = image.width % scale == image.height % scale == 0
        if min(image.size) // scale >= side and (is_whole or not is_turned):
            return scale
    return 1


def _upright(image: Image.Image) -> Image.Image:
    """Turn an image as its EXIF says."""
    image.getexif()
    # Read by now. It is never written back, and a tag that cannot be written is no damage.
    for name in ("exif", "Raw profile type exif"):
        image.info.pop(name, None)
    ImageOps.exif_transpose(image, in_place=True)
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    # Large images: no copy that is not needed.
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    white = Image.new("RGB", rgba.size, "white")
    white.paste(rgba, mask=rgba.getchannel("A"))
    return white
