"""Every image read once: its content's hash, its form, and small copies to compare it by.

On all cores, in chunks. What is kept of an image is less than two kilobytes.
"""

import hashlib
import io
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from container.classifier.errors import ImageError
from container.classifier.preprocessing import FORMATS, Pixels, decode_image
from image_classifier.preparation.duplicates import THUMBNAIL_SIZE, perceptual_hash

# Of the small copies that make a class's average image.
SMALL_SIZE = 48

CHUNK = 64

# Below it new processes take longer to start than the work takes.
FEW = 512

ORIENTATION = 0x0112

# Levels that compression adds to one color, or to gray.
TRACE = 2

# A whole file ends with, or within the last bytes has, what its format ends with.
ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND", "GIF": b";"}
END_BYTES = 64


@dataclass(frozen=True, slots=True)
class Measured:
    """What is kept of an image's file in words and numbers."""

    size_bytes: int
    sha256: str
    """Of the file's bytes; empty where it cannot be read."""

    format: str = ""
    """As Pillow calls it, as is the mode; empty where no format is recognized."""

    mode: str = ""
    width: int = 0
    height: int = 0
    """As stored, before it is turned upright."""

    orientation: int = 1
    """EXIF's: 1 is upright."""

    brightness: float = 0.0
    """Mean of all pixels and colors, 0 to 255."""

    is_constant: bool = False
    is_gray: bool = False
    """Whether no pixel has a color."""

    problem: str = ""
    """Why it cannot be decoded; empty where it can."""

    ends_early: bool = False


@dataclass(frozen=True, slots=True)
class Scan:
    """All N images of a data set."""

    measured: list[Measured]

    hashes: npt.NDArray[np.uint64]
    """(N,): perceptual; 0 where an image is not readable."""

    thumbnails: Pixels
    """(N, 16, 16, 3)."""

    averages: Mapping[str, Pixels]
    """(48, 48, 3): each class's average image."""

    def of(self, places: Sequence[int]) -> Self:
        """Return the scan of some of the images; the averages remain those of all."""
        measured = [self.measured[place] for place in places]
        return type(self)(measured, self.hashes[places], self.thumbnails[places], self.averages)

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        """(N,): whether an image can be decoded."""
        return np.array([not item.problem for item in self.measured], dtype=bool)


def scan(
    folder: Path,
    names: Sequence[str],
    class_names: Sequence[str],
    *,
    quiet: bool = False,
) -> Scan:
    """Read N images.

    Args:
        folder: Where they lie.
        names: N paths in the folder.
        class_names: Of these N images.
        quiet: No progress bar.
    """
    measured: list[Measured] = []
    hashes = np.zeros(len(names), np.uint64)
    thumbnails = np.zeros((len(names), THUMBNAIL_SIZE, THUMBNAIL_SIZE, 3), np.uint8)
    sums = {name: np.zeros((SMALL_SIZE, SMALL_SIZE, 3), np.float32) for name in class_names}
    counts = Counter[str]()
    step = SMALL_SIZE // THUMBNAIL_SIZE
    with tqdm(total=len(names), desc="read", unit=" images", disable=quiet or None) as bar:
        for items, small in _measure_all([folder / name for name in names]):
            start = len(measured)
            for place, item in enumerate(items, start):
                if not item.problem:
                    sums[class_names[place]] += small[place - start]
                    counts[class_names[place]] += 1
                    hashes[place] = perceptual_hash(small[place - start])
            blocks = small.reshape(len(small), THUMBNAIL_SIZE, step, THUMBNAIL_SIZE, step, 3)
            thumbnails[start : start + len(items)] = blocks.mean(axis=(2, 4)).round()
            measured += items
            bar.update(len(items))
    averages = {
        name: (total / max(counts[name], 1)).round().astype(np.uint8)
        for name, total in sums.items()
    }
    return Scan(measured, hashes, thumbnails, averages)


def processors() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _measure_all(paths: Sequence[Path]) -> Iterator[tuple[list[Measured], Pixels]]:
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    if len(paths) < FEW or processors() == 1:
        yield from map(_measure_chunk, chunks)
        return
    # Spawned, not forked: whoever calls may have threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processors(), mp_context=context) as pool:
        yield from pool.map(_measure_chunk, chunks)


def _measure_chunk(paths: Sequence[Path]) -> tuple[list[Measured], Pixels]:
    """Return what is kept of some images, and their small copies (n, 48, 48, 3)."""
    measured = []
    small = np.zeros((len(paths), SMALL_SIZE, SMALL_SIZE, 3), np.uint8)
    for place, path in enumerate(paths):
        try:
            data = path.read_bytes()
        except OSError as error:
            measured.append(Measured(0, "", problem=error.strerror or str(error)))
            continue
        item, pixels = measure(data)
        measured.append(item)
        if pixels is not None:
            small[place] = pixels
    return measured, small


def measure(data: bytes) -> tuple[Measured, Pixels | None]:
    """Measure one image's file; return its small copy too, None where it cannot be decoded."""
    plain = Measured(len(data), hashlib.sha256(data).hexdigest(), *_form(data))
    try:
        image = decode_image(data)
    except ImageError as error:
        early = _ends_early(data, plain.format) or "truncated" in str(error)
        return replace(plain, problem=str(error), ends_early=bool(plain.format) and early), None
    resized = image.resize((SMALL_SIZE, SMALL_SIZE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    small = np.asarray(resized)
    spans = [np.ptp(channel.getextrema()) for channel in image.split()]
    colors = np.ptp(small.astype(np.int16), axis=2)
    measured = replace(
        plain,
        brightness=float(small.mean()),
        is_constant=bool(max(spans) <= TRACE),
        is_gray=bool(colors.max() <= TRACE),
    )
    return measured, small


def _form(data: bytes) -> tuple[str, str, int, int, int]:
    """Return format, mode, width, height and orientation by the header, as far as it has one."""
    form = ("", "", 0, 0)
    # Pillow raises whatever a damaged header, or damaged EXIF, makes it run into.
    with suppress(Exception), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        form = (image.format or "", image.mode, image.width, image.height)
        orientation = image.getexif().get(ORIENTATION, 1)
        return *form, orientation if isinstance(orientation, int) else 1
    return *form, 1


def _ends_early(data: bytes, kind: str) -> bool:
    if kind == "WEBP":
        return len(data) < int.from_bytes(data[4:8], "little") + 8
    if kind == "BMP":
        return len(data) < int.from_bytes(data[2:6], "little")
    end = ENDS.get(kind)
    return end is not None and end not in data[-END_BYTES:]
