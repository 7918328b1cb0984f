"""The preprocessing of an image file to the pixels of a network's input.

Training and serving both call it, so their pixels are equal bit for bit. Normalization (scaling,
mean, standard deviation) is the network's first layer.
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

# Common formats only: each decoder is an attack surface.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")

# More than the 48 megapixels of a phone's camera. Decoding needs 4 bytes per pixel for JPEG and 16
# for WebP, the maximum of all formats: 0.8 GB, which fits into a serverless endpoint of 1 GB.
# Pillow checks the size in the header before it decodes.
MAX_PIXELS = 50_000_000
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
warnings.simplefilter("error", Image.DecompressionBombWarning)

# Each scan of a progressive JPEG covers all of its pixels. Encoders write about ten; a file of
# 200 KB with thousands would take minutes.
MAX_SCANS = 100

# Segments are tables, profiles and so on: a large profile has a hundred. Pillow joins the segments
# of EXIF in quadratic time.
MAX_SEGMENTS = 1000
START_OF_IMAGE, START_OF_SCAN, END_OF_IMAGE = b"\xff\xd8", b"\xda", b"\xd9"

# Markers of segments with a length. Without one are stuffed bytes and restarts, which are within a
# scan, and markers that Pillow or libjpeg skip.
MARKER = re.compile(rb"\xff([^\x00-\xbf\xc8\xd0-\xd8\xf0-\xfd\xff])", re.DOTALL)

# Pillow reads a header in pieces and keeps an object for each comment of a GIF: 25 MB of very short
# comments needed 1.1 GB. A profile of 25 MB has this many pieces, in blocks of 255 bytes.
MAX_HEADER_PIECES = 200_000

# Factors by which libjpeg can reduce an image while it decodes.
SCALES = (8, 4, 2)

MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 16, 1024

# Pillow first reduces by an integer factor, which is fast, to at least this multiple of the target
# size, and resamples the rest.
REDUCING_GAP = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocessing:
    """The parameters of preprocessing, part of every artifact."""

    image_size: int
    """Height and width of the network's input, in pixels."""

    crop_fraction: float = 1.0
    """Fraction of the image's shorter side that the center crop keeps."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        is_whole = isinstance(self.image_size, int)
        if not (is_whole and MIN_IMAGE_SIZE <= self.image_size <= MAX_IMAGE_SIZE):
            raise UserError(
                f"image_size must be {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE}, got {self.image_size!r}"
            )
        if not 0 < self.crop_fraction <= 1:
            raise UserError(
                f"crop_fraction must be above 0 and at most 1, got {self.crop_fraction}"
            )


class _File(io.BytesIO):
    """An image file that limits the pieces of its header."""

    pieces_left: float = MAX_HEADER_PIECES

    def read(self, size: int | None = -1, /) -> bytes:
        self.pieces_left -= 1
        if self.pieces_left < 0:
            raise ImageError(f"the image's header has more than {MAX_HEADER_PIECES} pieces")
        return super().read(size)


def decode_image(data: bytes, side: int | None = None) -> Image.Image:
    """Decode an image to upright RGB.

    The EXIF orientation is applied, transparency becomes white, 16-bit gray keeps its upper 8 bits,
    and only the first frame of an animation is decoded. Given a minimum `side` in pixels, a JPEG
    may be decoded at a half, a quarter or an eighth of its size, which is faster.

    Raises:
        ImageError: the format is unknown, or the image is damaged or too large.
    """
    return _decode(data, side)[0]


def _decode(data: bytes, side: int | None) -> tuple[Image.Image, Size]:
    """Decode an image; return also the width and height of its content in pixels."""
    try:
        # Before Pillow reads the segments.
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
        raise ImageError(
            f"not an image of a known format ({', '.join(FORMATS)}), {len(data)} bytes"
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"the image has more than {MAX_PIXELS} pixels") from None
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        # Pillow's decoders raise exceptions of any type for a damaged file.
        raise ImageError(f"the image is damaged: {error}") from error


def fit(image: Image.Image, settings: Preprocessing, size: Size | None = None) -> Pixels:
    """Crop the center square of an RGB image, and resize it to (image_size, image_size, 3).

    `size` is the width and height of the content, from the top left corner, if it is not the whole.
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
    """Decode an image and fit it to the network's input.

    Returns:
        uint8 of shape (image_size, image_size, 3).

    Raises:
        ImageError: see `decode_image`.
    """
    side = math.ceil(REDUCING_GAP * settings.image_size / settings.crop_fraction)
    image, size = _decode(data, side)
    return fit(image, settings, size)


def _check_segments(data: bytes) -> None:
    """Count a JPEG's segments and scans; data after its end, such as a video, are ignored.

    Raises:
        ImageError: there are too many segments or scans.
    """
    segments, scans, position = 0, 0, len(START_OF_IMAGE)
    while match := MARKER.search(data, position):
        if match[1] == END_OF_IMAGE:
            if scans:
                return
            # Pillow continues if there was no image yet.
            position = match.end()
            continue
        segments += 1
        scans += match[1] == START_OF_SCAN
        if scans > MAX_SCANS or segments > MAX_SEGMENTS:
            kind, most = ("scans", MAX_SCANS) if scans > MAX_SCANS else ("segments", MAX_SEGMENTS)
            raise ImageError(f"the image has more than {most} {kind}")
        # A segment starts with its length; its content, such as a thumbnail, is skipped.
        position = match.end() + max(2, int.from_bytes(data[match.end() : match.end() + 2]))


def _scale(image: Image.Image, side: int) -> int:
    """Return the factor by which a JPEG is decoded smaller.

    libjpeg rounds up: half of 401 pixels are 201, of which the content fills 200.5. In an image
    that must be rotated the unfilled part could be on the left, so it has exact factors only.
    """
    is_jpeg = image.format in {"JPEG", "MPO"}
    is_rotated = is_jpeg and image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    for scale in SCALES if is_jpeg else ():
        is_whole = image.width % scale == image.height % scale == 0
        if min(image.size) // scale >= side and (is_whole or not is_rotated):
            return scale
    return 1


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation to an image."""
    image.getexif()
    # EXIF is loaded now. Pillow would fail to write invalid tags back, so its bytes are removed.
    for name in ("exif", "Raw profile type exif"):
        image.info.pop(name, None)
    ImageOps.exif_transpose(image, in_place=True)
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    # Large images: avoid copies.
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
