"""The preprocessing of an image file to the pixels of a network's input.

Training and serving both call it, so their pixels are equal bit for bit. Normalization (scaling,
mean, standard deviation) is the network's first layer.
"""

import io
import math
import warnings
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from pi_heif import register_heif_opener
from PIL import (
    AvifImagePlugin,
    ExifTags,
    Image,
    ImageFile,
    ImageOps,
    TiffImagePlugin,
    UnidentifiedImageError,
)

from container.classifier.environment import IMAGE_MEMORY_VARIABLE, MB, image_bytes
from container.classifier.errors import ImageError, UserError
from container.classifier.jpeg import START_OF_IMAGE, read_jpeg
from container.classifier.media_types import IMAGE_FORMATS
from container.classifier.png import PNG_SIGNATURE, without_metadata
from container.classifier.tiff import TILE_LENGTH, TILE_WIDTH, check_parts

Pixels: TypeAlias = npt.NDArray[np.uint8]
Size: TypeAlias = tuple[float, float]

FORMAT_NAMES = ", ".join(IMAGE_FORMATS)

# Decoding a pixel needs at most this memory in any format but JPEG; WebP's decoder needs most.
PIXEL_BYTES = 16

# The memory limit is checked below: it depends on the format.
Image.MAX_IMAGE_PIXELS = None

# Pillow warns of what it repairs, and of the reason why a file of a known format cannot be opened.
Image.WARN_POSSIBLE_FORMATS = True
UNOPENED = " opening failed. "
warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
warnings.filterwarnings("error", message=f".*{UNOPENED}", category=UserWarning)

# Requests are decoded in parallel already.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)

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
        jpeg = read_jpeg(data) if data.startswith(START_OF_IMAGE) else None
        if jpeg:
            data = jpeg.data
        elif data.startswith(PNG_SIGNATURE):
            data = without_metadata(data)
        else:
            check_parts(data)
        file = _File(data)
        with Image.open(file, formats=IMAGE_FORMATS) as image:
            file.pieces_left = math.inf
            scale = 1 if side is None else _scale(image, side)
            width, height = image.size
            if jpeg:
                _check_memory(image, jpeg.needed_bytes(width, height, scale))
                decoded = jpeg.decode(width, height, scale)
                decoded.info = image.info
            else:
                _check_memory(image, PIXEL_BYTES * width * height)
                decoded = _load(image)
            is_whole = width % scale == height % scale == 0
            upright = _to_rgb(_upright(decoded))
            return upright, upright.size if is_whole else (width / scale, height / scale)
    except UnidentifiedImageError:
        raise ImageError(
            f"not an image of a known format ({FORMAT_NAMES}), {len(data)} bytes"
        ) from None
    except (ImageError, UserError, MemoryError):
        raise
    except Exception as error:
        # Pillow's decoders raise exceptions of any type for a damaged file.
        reason = str(error).rpartition(UNOPENED)[2]
        raise ImageError(f"the image is damaged: {reason}") from error


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


def _check_memory(image: Image.Image, needed: int) -> None:
    """Check the memory for decoding before any of it is allocated.

    Raises:
        ImageError: the image needs more than IMAGE_MEMORY_VARIABLE allows.
    """
    limit = image_bytes()
    if needed > limit:
        raise ImageError(
            f"decoding {image.width} x {image.height} pixels takes {-(-needed // MB)} MB, "
            f"{IMAGE_MEMORY_VARIABLE} allows {limit // MB}"
        )


def _load(image: ImageFile.ImageFile) -> Image.Image:
    """Load the pixels of an image that is not a JPEG."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tile = [image.tag_v2.get(tag, 1) for tag in (TILE_WIDTH, TILE_LENGTH)]
        _check_memory(image, PIXEL_BYTES * math.prod(tile))
        if image.mode in {"I", "F"}:
            raise ImageError("a TIFF of 32-bit numbers has no known white: save it with 8 bits")
    box = image.tile[0].extents if image.tile else None
    image.load()
    if image.format == "GIF" and box and box != (0, 0, *image.size):
        # Outside of its first frame a GIF is transparent.
        canvas = Image.new("RGB", image.size, "white")
        canvas.paste(_to_rgb(image.crop(box)), box[:2])
        return canvas
    if image.format == "BMP" and image.mode == "RGBA" and not image.getchannel("A").getbbox():
        # Programs that ignore alpha leave it zero. The other formats have transparency on purpose.
        return image.convert("RGB")
    return image


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
