"""Images of formats that training does not read, converted to ones that it reads."""

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from PIL import Image, ImageOps

from container.classifier.errors import ImageError
from container.classifier.image_files import image_format
from container.classifier.media_types import IMAGE_MEDIA_TYPES, IMAGE_SUFFIXES
from container.classifier.preprocessing import FORMATS, MAX_PIXELS

# Photographs of telephones and web pages are compressed with losses already.
CONVERTED: Mapping[str, str] = {
    "TIFF": "PNG",
    "PPM": "PNG",
    "JPEG2000": "PNG",
    "AVIF": "JPEG",
    "HEIF": "JPEG",
}

# Other suffixes of images, which are replaced: the end of a name can be another part of it.
_SUFFIXES = frozenset({
        ".jfif", ".jpe", ".pjpeg", ".pjp", ".apng", ".dib", ".tif", ".tiff", ".heic", ".heif",
        ".avif", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm",
})  # fmt: skip

# Modes that PNG and JPEG have in common with the network's input. 16 bits stay in a PNG.
_MODES = {"RGB", "L", "I;16"}
JPEG_QUALITY = 95

START_BYTES = 512


@dataclass(frozen=True, slots=True)
class Converted:
    """An image's file in a format that training reads."""

    data: bytes
    original: str
    """Pillow's name of the format before; empty if the file is as it was."""


def convert(data: bytes) -> Converted:
    """Convert an image, if training does not read its format; the first page of several.

    Raises:
        ImageError: it cannot be read.
    """
    original = image_format(data[:START_BYTES])
    if original in FORMATS or original not in CONVERTED:
        return Converted(data, "")
    if original == "HEIF":
        _register_heif()
    try:
        with warnings.catch_warnings():
            # Of damaged metadata, which is not kept.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=(original,)) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ImageError(f"the image has more than {MAX_PIXELS} pixels")
                return Converted(_encode(image, CONVERTED[original]), original)
    except ImageError:
        raise
    except Exception as error:
        # Pillow's decoders raise exceptions of any type for a damaged file.
        raise ImageError(f"the image is damaged: {error}") from error


def written_name(name: str, kind: str, *, is_converted: bool) -> str:
    """Return the name of a prepared file: with a suffix of images, and of its format if converted.

    Args:
        name: Its path, with slashes.
        kind: Pillow's name of its format.
        is_converted: Whether this is another format than before.
    """
    path = PurePosixPath(name)
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES and not is_converted:
        return name
    stem = str(path.with_suffix("")) if suffix in _SUFFIXES | IMAGE_SUFFIXES else name
    return stem + suffix_of(kind)


def suffix_of(kind: str) -> str:
    """Return the suffix of a format."""
    media_type = f"image/{kind.replace('MPO', 'JPEG').lower()}"
    return next(suffix for suffix, found in IMAGE_MEDIA_TYPES.items() if found == media_type)


def _encode(image: Image.Image, kind: str) -> bytes:
    image.getexif()
    upright = ImageOps.exif_transpose(image)
    if kind == "JPEG" or upright.mode not in _MODES:
        upright = _to_common(upright, kind)
    file = io.BytesIO()
    options = (
        {"quality": JPEG_QUALITY, "subsampling": 0} if kind == "JPEG" else {"compress_level": 3}
    )
    upright.save(file, kind, **options)
    return file.getvalue()


def _to_common(image: Image.Image, kind: str) -> Image.Image:
    """Return an image in a mode that the format has."""
    if image.mode.startswith("I;16") and kind == "PNG":
        return image.convert("I").convert("I;16")
    if image.mode == "F" or image.mode.startswith("I"):
        raise ImageError(f"pixels of mode {image.mode} have no range: convert them to 8 or 16 bits")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGB", rgba.size, "white")
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    return image if image.mode in {"RGB", "L"} else image.convert("RGB")


def _register_heif() -> None:
    try:
        import pillow_heif  # noqa: PLC0415 (not in every installation)
    except ImportError as error:
        raise ImageError("HEIC images need the package pillow-heif: install it") from error
    pillow_heif.register_heif_opener()
