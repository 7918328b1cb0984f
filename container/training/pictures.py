"""Every picture of a channel decoded once, into pixels on the job's disk."""

import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from classifier.errors import ImageError, UserError
from classifier.preprocessing import Pixels, Preprocessing, preprocess
from training.channel import LabelledFile
from training.stop import StopRequest

logger = logging.getLogger(__name__)

# More broken ones are no accident but a broken data set.
MAX_BROKEN_SHARE = 0.05

MAX_NAMED = 10


@dataclass(frozen=True, slots=True)
class Pictures:
    """The readable pictures of a channel, in the order of its files."""

    pixels: Pixels
    """uint8 of shape (N, image_size, image_size, 3), mapped from disk."""

    labels: npt.NDArray[np.int64]
    """Of shape (N,): indices into the class names."""

    paths: tuple[Path, ...]

    sha256: str
    """Of all files' contents and class names: equal data, equal value."""

    def __len__(self) -> int:
        """Return N."""
        return len(self.labels)


def decode(
    files: Sequence[LabelledFile],
    class_names: Sequence[str],
    settings: Preprocessing,
    stop: StopRequest,
) -> Pictures:
    """Decode files in parallel; the broken ones are named, counted and left out.

    Raises:
        UserError: more than 5 % are broken, or the disk has no room for the pixels.
        Stopped: a stop was requested.
    """
    shape = (len(files), settings.image_size, settings.image_size, 3)
    pixels = _map_scratch_file(shape)
    labels: list[int] = []
    paths: list[Path] = []
    broken: list[str] = []
    digest = hashlib.sha256()
    label_of = {name: label for label, name in enumerate(class_names)}
    decoded = _decode_all([file.path for file in files], settings)
    # disable=None: a bar on a terminal, none in a log.
    bar = tqdm(decoded, total=len(files), desc="decode", unit=" pictures", disable=None)
    for file, (fitted, sha256) in zip(files, bar, strict=True):
        stop.check()
        if isinstance(fitted, ImageError):
            broken.append(f"{file.path} ({fitted})")
            continue
        pixels[len(paths)] = fitted
        labels.append(label_of[file.class_name])
        paths.append(file.path)
        digest.update(sha256 + file.class_name.encode())
    _judge_broken(broken, len(files))
    return Pictures(
        pixels[: len(paths)], np.array(labels, dtype=np.int64), tuple(paths), digest.hexdigest()
    )


def _decode_all(
    paths: Sequence[Path], settings: Preprocessing
) -> Iterator[tuple[Pixels | ImageError, bytes]]:
    def decode_one(path: Path) -> tuple[Pixels | ImageError, bytes]:
        try:
            data = path.read_bytes()
        except OSError as error:
            return ImageError(error.strerror), b""
        sha256 = hashlib.sha256(data).digest()
        try:
            return preprocess(data, settings), sha256
        except ImageError as error:
            return error, sha256

    # Threads, not processes: Pillow releases the GIL while it decodes and resizes.
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with ThreadPoolExecutor(workers) as pool:
        # In chunks: what is decoded ahead of the reader stays small.
        for start in range(0, len(paths), 256):
            yield from pool.map(decode_one, paths[start : start + 256])


def _map_scratch_file(shape: tuple[int, ...]) -> Pixels:
    size_bytes = int(np.prod(shape))
    with tempfile.TemporaryFile() as file:
        if hasattr(os, "posix_fallocate"):
            try:
                # Now, not page by page later: a full disk is an error here and a SIGBUS there.
                os.posix_fallocate(file.fileno(), 0, size_bytes)
            except OSError as error:
                message = (
                    f"no room for {size_bytes / 1e9:.2f} GB of decoded pictures in "
                    f"{tempfile.gettempdir()} ({error.strerror}): give the job a larger volume "
                    "(volume_size) or a smaller image_size"
                )
                raise UserError(message) from error
        return np.memmap(file, dtype=np.uint8, mode="w+", shape=shape)


def _judge_broken(broken: Sequence[str], total: int) -> None:
    if not broken:
        return
    named = "; ".join(broken[:MAX_NAMED]) + ("; ..." if len(broken) > MAX_NAMED else "")
    counted = f"{len(broken)} of {total} pictures cannot be read"
    if len(broken) > MAX_BROKEN_SHARE * total:
        message = f"{counted}, more than {MAX_BROKEN_SHARE:.0%}: {named}"
        raise UserError(message)
    logger.warning("%s and are left out: %s", counted, named)
