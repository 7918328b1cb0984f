"""Images as cameras, scanners and the web make them: odd sizes, modes and orientations."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIZES = (
    (1, 1), (1, 40), (40, 1), (2, 3), (17, 16), (64, 64), (100, 67), (333, 250), (3000, 37),
    (37, 3000), (640, 481), (225, 224),
)  # fmt: skip

# Of an image's file: its format, and the mode in which it is saved.
KINDS = (
    ("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("PNG", "L"), ("PNG", "LA"),
    ("PNG", "P"), ("PNG", "RGBA"), ("PNG", "I;16"), ("PNG", "1"), ("WEBP", "RGB"),
    ("WEBP", "RGBA"), ("GIF", "P"), ("BMP", "RGB"),
    ("TIFF", "RGB"), ("AVIF", "RGB"),
)  # fmt: skip

# Those that have a place for EXIF.
WITH_EXIF = ("JPEG", "PNG", "WEBP")

ORIENTATION = 0x0112


def drawn(number: int) -> Image.Image:
    """Draw shapes on a gradient with noise, in RGB."""
    random = np.random.default_rng(number)
    width, height = SIZES[number % len(SIZES)]
    corners = random.integers(0, 256, (2, 2, 3), np.uint8)
    image = Image.fromarray(corners).resize((width, height), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(image)
    for _ in range(4):
        left, right = sorted(random.integers(0, width, 2).tolist())
        top, bottom = sorted(random.integers(0, height, 2).tolist())
        shape = draw.ellipse if random.random() < 0.5 else draw.rectangle
        shape((left, top, right, bottom), fill=tuple(random.integers(0, 256, 3).tolist()))
    noise = random.normal(0, 12, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, number: int) -> tuple[str, bytes]:
    """Return the suffix and the file of an image in the kind and orientation of its number."""
    kind, mode = KINDS[number % len(KINDS)]
    exif = Image.Exif()
    exif[ORIENTATION] = number % 8 + 1
    file = io.BytesIO()
    settings = {"exif": exif} if kind in WITH_EXIF else {}
    _in_mode(image, mode).save(file, kind, **settings)
    return f".{kind.lower()}", file.getvalue()


def generated(count: int) -> Iterator[tuple[str, bytes]]:
    """Yield suffixes and files, the same on every machine up to its codecs."""
    for number in range(count):
        yield encoded(drawn(number), number)


def from_archive(path: Path, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield images of a tar file, spread over it, in odd modes and orientations."""
    with tarfile.open(path) as archive:
        members = [m for m in archive if m.isfile() and m.name.lower().endswith(".jpg")]
        for number, place in enumerate(np.linspace(0, len(members) - 1, count).astype(int)):
            file = archive.extractfile(members[place])
            assert file is not None
            with Image.open(file) as image:
                yield encoded(image.convert("RGB"), number)


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        wide = np.asarray(image.convert("L")).astype(np.uint16) * 257
        return Image.fromarray(wide)
    if mode in {"LA", "RGBA"}:
        image = image.convert(mode)
        # Half transparent to the right.
        alpha = np.full((image.height, image.width), 255, np.uint8)
        alpha[:, image.width // 2 :] = 90
        image.putalpha(Image.fromarray(alpha))
        return image
    return image.convert(mode)
