"""Reads every image once: its content hash, its format, and small copies for comparisons.

Uses all CPUs, in chunks. Keeps less than three kilobytes of an image.
"""

import hashlib
import io
import multiprocessing
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image
from tqdm import tqdm

from container.classifier.errors import ImageError
from container.classifier.machine import usable_cpus
from container.classifier.media_types import IMAGE_FORMATS
from container.classifier.preprocessing import Pixels, decode_image
from image_classifier.preparation.conversion import convert
from image_classifier.preparation.duplicates import THUMBNAIL_SIZE, perceptual_hash
from image_classifier.preparation.features import EDGES_SHAPE, Edges, Features, edges_of
from image_classifier.preparation.labels import Labeled, class_names
from image_classifier.preparation.quality import Quality

# Height and width of the copies that are averaged per class and reduced to thumbnails.
SMALL_SIZE = 48

# Shorter side from which a JPEG is decoded smaller.
DECODED_SIDE = 512

# Images that a process reads at a time.
CHUNK = 64

# With fewer images, starting processes takes longer than reading.
MIN_PARALLEL = 512

# Levels by which compression changes a single color, or gray.
TRACE = 2

# The last bytes of a complete file contain the end marker of its format.
ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND", "GIF": b";"}
END_BYTES = 64


@dataclass(frozen=True, slots=True)
class Measured:
    """Facts about an image's file."""

    size_bytes: int
    sha256: str
    """Of the file's bytes; empty if it cannot be read."""

    format: str = ""
    """Pillow's name, as is the mode; empty if the format is unknown."""

    mode: str = ""
    width: int = 0
    height: int = 0
    """As stored, before the EXIF orientation is applied."""

    orientation: int = 1
    """EXIF's: 1 is upright."""

    brightness: float = 0.0
    """Mean of all pixels and channels, 0 to 255."""

    is_constant: bool = False
    is_gray: bool = False
    """Whether all channels of all pixels are equal."""

    problem: str = ""
    """Why it cannot be decoded; empty if it can."""

    original: str = ""
    """Pillow's name of the format before the image was converted; empty if it was not.

    The other facts are those of the converted file.
    """

    ends_early: bool = False

    quality: Quality | None = None
    """None if it cannot be decoded."""


@dataclass(frozen=True, slots=True)
class Scan:
    """All N images of a data set."""

    measured: list[Measured]

    hashes: npt.NDArray[np.uint64]
    """(N,): perceptual; 0 for an image that cannot be decoded."""

    thumbnails: Pixels
    """(N, 16, 16, 3)."""

    edges: Edges
    """(N, 6, 6, 8); see `features`."""

    averages: Mapping[str, Pixels]
    """(48, 48, 3): the average image of each class."""

    network_features: Features | None = None
    """(N, D), of a pretrained network; zeros for an image that cannot be decoded."""

    def of(self, indices: Sequence[int]) -> Self:
        """Return the scan of some of the images; the averages remain those of all."""
        found = self.network_features
        return type(self)(
            [self.measured[index] for index in indices],
            self.hashes[indices],
            self.thumbnails[indices],
            self.edges[indices],
            self.averages,
            None if found is None else found[indices],
        )

    @property
    def is_comparable(self) -> npt.NDArray[np.bool_]:
        """(N,): whether an image can be decoded and is not constant."""
        return np.array([not (item.problem or item.is_constant) for item in self.measured], bool)


def scan(folder: Path, images: Sequence[Labeled], *, quiet: bool = False) -> Scan:
    """Read the images of a folder."""
    measured = []
    hashes = np.zeros(len(images), np.uint64)
    thumbnails = np.zeros((len(images), THUMBNAIL_SIZE, THUMBNAIL_SIZE, 3), np.uint8)
    edges = np.zeros((len(images), *EDGES_SHAPE), np.float16)
    sums = {name: np.zeros((SMALL_SIZE, SMALL_SIZE, 3), np.float32) for name in class_names(images)}
    counts = Counter[str]()
    step = SMALL_SIZE // THUMBNAIL_SIZE
    files = _measure_all([folder / image.name for image in images])
    bar = tqdm(files, total=len(images), desc="read", unit=" images", disable=quiet or None)
    for index, (item, small) in enumerate(bar):
        measured.append(item)
        if small is not None:
            sums[images[index].class_name] += small
            counts[images[index].class_name] += 1
            hashes[index] = perceptual_hash(small)
            # One axis at a time: faster than a mean over two short axes.
            rows = small.reshape(THUMBNAIL_SIZE, step, -1).sum(axis=1, dtype=np.uint16)
            cells = rows.reshape(THUMBNAIL_SIZE, THUMBNAIL_SIZE, step, 3)
            thumbnails[index] = (cells.sum(axis=2, dtype=np.uint16) + step**2 // 2) // step**2
            edges[index] = edges_of(small)
    means = {name: total / max(counts[name], 1) for name, total in sums.items()}
    averages = {name: mean.round().astype(np.uint8) for name, mean in means.items()}
    return Scan(measured, hashes, thumbnails, edges, averages)


def _measure_all(paths: Sequence[Path]) -> Iterator[tuple[Measured, Pixels | None]]:
    processes = max(1, int(usable_cpus()))
    if len(paths) < MIN_PARALLEL or processes == 1:
        yield from map(_measure_file, paths)
        return
    # Spawned, not forked: the calling process can have threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        yield from pool.map(_measure_file, paths, chunksize=CHUNK)


def _measure_file(path: Path) -> tuple[Measured, Pixels | None]:
    try:
        return measure(path.read_bytes())
    except OSError as error:
        return Measured(0, "", problem=error.strerror or str(error)), None


def measure(data: bytes) -> tuple[Measured, Pixels | None]:
    """Measure one image's file; return its small copy too, None if it cannot be decoded."""
    try:
        converted = convert(data)
    except ImageError as error:
        return Measured(len(data), hashlib.sha256(data).hexdigest(), problem=str(error)), None
    data = converted.data
    size_and_hash = Measured(len(data), hashlib.sha256(data).hexdigest())
    header = replace(_read_header(size_and_hash, data), original=converted.original)
    try:
        # As training does, a large JPEG is decoded at a half, a quarter or an eighth of its size.
        image = decode_image(data, DECODED_SIDE)
    except ImageError as error:
        early = _ends_early(data, header.format) or "truncated" in str(error)
        return replace(header, problem=str(error), ends_early=bool(header.format) and early), None
    resized = image.resize((SMALL_SIZE, SMALL_SIZE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    small = np.asarray(resized)
    is_constant = bool(np.ptp(image.getextrema(), axis=1).max() <= TRACE)
    # Pairs of channels: faster than the extrema of a short axis.
    red, green, blue = np.moveaxis(small, 2, 0)
    highest, lowest = np.maximum(red, green), np.minimum(red, green)
    colors = np.maximum(highest, blue) - np.minimum(lowest, blue)
    is_gray = bool(colors.max() <= TRACE)
    brightness = float(small.mean())
    measured = replace(
        header,
        brightness=brightness,
        is_constant=is_constant,
        is_gray=is_gray,
        quality=replace(Quality.of(image), width=header.width, height=header.height),
    )
    return measured, small


def _read_header(measured: Measured, data: bytes) -> Measured:
    """Add format, mode, size and orientation, as far as the header is readable."""
    # Pillow raises many types of errors on a damaged header or damaged EXIF data.
    with suppress(Exception), Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
        width, height = image.size
        form, mode = image.format or "", image.mode
        measured = replace(measured, format=form, mode=mode, width=width, height=height)
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        if isinstance(orientation, int):
            measured = replace(measured, orientation=orientation)
    return measured


def _ends_early(data: bytes, kind: str) -> bool:
    if kind == "WEBP":
        return len(data) < int.from_bytes(data[4:8], "little") + 8
    if kind == "BMP":
        return len(data) < int.from_bytes(data[2:6], "little")
    end = ENDS.get(kind)
    return end is not None and end not in data[-END_BYTES:]
