"""Images of formats that training does not read, converted to ones that it reads."""

import io
from dataclasses import dataclass
from pathlib import PurePosixPath

from PIL import Image

from container.classifier.errors import ImageError
from container.classifier.image_files import image_format
from container.classifier.media_types import IMAGE_MEDIA_TYPES, IMAGE_SUFFIXES

# Formats of older data sets. They become PNG, which loses nothing.
CONVERTED = frozenset({"PPM", "JPEG2000"})
MAX_PIXELS = 50_000_000

START_BYTES = 512

# Other suffixes of images, which are replaced: the end of a name can be another part of it.
_SUFFIXES = frozenset(
    {".pjpeg", ".pjp", ".apng", ".dib", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm"}
)


@dataclass(frozen=True, slots=True)
class Converted:
    """An image's file in a format that training reads."""

    data: bytes
    original: str
    """Pillow's name of the format before; empty if the file is as it was."""


def convert(data: bytes) -> Converted:
    """Convert an image, if training does not read its format.

    Raises:
        ImageError: it cannot be read.
    """
    original = image_format(data[:START_BYTES])
    if original not in CONVERTED:
        return Converted(data, "")
    try:
        with Image.open(io.BytesIO(data), formats=(original,)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(f"the image has more than {MAX_PIXELS} pixels")
            file = io.BytesIO()
            image.save(file, "PNG", compress_level=3)
    except ImageError:
        raise
    except Exception as error:
        # Pillow's decoders raise exceptions of any type for a damaged file.
        raise ImageError(f"the image is damaged: {error}") from error
    return Converted(file.getvalue(), original)


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
