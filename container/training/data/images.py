"""Every image of a channel decoded once, into pixels in the cache on the job's disk."""

import hashlib
import inspect
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import PIL
from tqdm import tqdm

from container.classifier import machine, preprocessing
from container.classifier.channel import LabeledFile
from container.classifier.errors import ImageError, UserError
from container.classifier.preprocessing import Pixels, Preprocessing, preprocess
from container.training.data.cache import Cache
from container.training.sagemaker.stop import Stop

logger = logging.getLogger(__name__)

# More broken ones are no accident but a broken data set.
MAX_BROKEN_SHARE = 0.05

MAX_NAMED = 10

# Of what the cache holds; another one is decoded again.
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class ImageSet:
    """The readable images of a channel, in the order of its files."""

    pixels: Pixels
    """uint8 of shape (N, image_size, image_size, 3), mapped from disk, read-only."""

    labels: npt.NDArray[np.int64]
    """Of shape (N,): indices into the class names."""

    paths: tuple[Path, ...]

    sha256: str
    """Of all files' contents and class names: equal data, equal value."""

    def __len__(self) -> int:
        """Return N."""
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class _Stored:
    """An entry of the cache: raw pixels, and behind them all else as JSON."""

    pixels: Pixels
    """uint8 of shape (files, image_size, image_size, 3); broken ones leave unused rows at its end.
    """

    sha256: str

    broken: Mapping[int, str]
    """What is wrong with the files at these places."""


def decode(
    files: Sequence[LabeledFile],
    class_names: Sequence[str],
    settings: Preprocessing,
    stop: Stop,
) -> ImageSet:
    """Decode files in parallel, unless this user's cache on this machine has their pixels.

    Broken images are named, counted and left out. Of several processes that want the same
    images one decodes, and the others wait for it.

    Raises:
        UserError: more than 5 % are broken, or the disk has no room for the pixels.
        Stopped: a stop was requested.
    """
    cache, key = Cache.of_this_user(), _key(files, settings)
    shape = (len(files), settings.image_size, settings.image_size, 3)
    with cache.locked(key, stop) as partial:
        stored = _find(cache, key, shape)
        how = "new" if stored is None else "cached"
        if stored is None:
            try:
                cache.reserve(partial, math.prod(shape))
                stored = _decode_into(partial, shape, files, settings, stop)
                cache.publish(key, partial)
            except OSError as error:
                message = (
                    f"no room for {math.prod(shape) / 1e9:.2f} GB of decoded images in "
                    f"{cache.directory} ({error.strerror}): give the job a larger volume "
                    "(volume_size) or a smaller image_size"
                )
                raise UserError(message) from error
    logger.info(
        "decoded_images=%s files=%d gigabytes=%.2f cache=%s",
        how,
        len(files),
        math.prod(shape) / 1e9,
        cache.directory,
    )
    _judge_broken([f"{files[i].path} ({why})" for i, why in stored.broken.items()], len(files))
    readable = [file for place, file in enumerate(files) if place not in stored.broken]
    label_of = {name: label for label, name in enumerate(class_names)}
    return ImageSet(
        stored.pixels[: len(readable)],
        np.array([label_of[file.class_name] for file in readable], dtype=np.int64),
        tuple(file.path for file in readable),
        stored.sha256,
    )


def _key(files: Sequence[LabeledFile], settings: Preprocessing) -> str:
    """Return what changes with the files and with what makes pixels of them."""
    code = inspect.getsource(preprocessing)
    parts = (FORMAT_VERSION, PIL.__version__, code, asdict(settings))
    digest = hashlib.sha256(ascii(parts).encode())
    for file in files:
        state = None
        try:
            status = file.path.stat()
            # ctime as well: it shows a file that was made readable, and a copy with its old mtime.
            state = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        except OSError:
            # It will be a broken one.
            pass
        # Resolved: trials of a tuning on this machine have links to one folder.
        digest.update(ascii((str(file.path.resolve()), file.class_name, state)).encode())
    return digest.hexdigest()


def _find(cache: Cache, key: str, shape: tuple[int, ...]) -> _Stored | None:
    file = cache.find(key)
    if file is None:
        return None
    with file:
        file.seek(math.prod(shape))
        try:
            index = json.loads(file.read())
        except ValueError:
            logger.warning("%s is not whole: its images are decoded again", file.name)
            return None
        return _Stored(_map(file, shape), index["sha256"], dict(index["broken"]))


def _decode_into(
    file: BinaryIO,
    shape: tuple[int, ...],
    files: Sequence[LabeledFile],
    settings: Preprocessing,
    stop: Stop,
) -> _Stored:
    broken: dict[int, str] = {}
    digest = hashlib.sha256()
    decoded = _decode_all([file.path for file in files], settings)
    # disable=None: a bar on a terminal, none in a log.
    bar = tqdm(decoded, total=len(files), desc="decode", unit=" images", disable=None)
    for place, (fitted, sha256) in enumerate(bar):
        stop.check()
        if isinstance(fitted, ImageError):
            broken[place] = str(fitted)
            continue
        # Written, not mapped: what is written does not count as this process's memory.
        file.write(fitted.data)
        digest.update(sha256 + files[place].class_name.encode())
    file.seek(math.prod(shape))
    index = {"sha256": digest.hexdigest(), "broken": list(broken.items())}
    file.write(json.dumps(index).encode())
    return _Stored(_map(file, shape), digest.hexdigest(), broken)


def _map(file: BinaryIO, shape: tuple[int, ...]) -> Pixels:
    return np.memmap(file, dtype=np.uint8, mode="r", shape=shape)


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
    with ThreadPoolExecutor(max(1, int(machine.usable_cpus()))) as pool:
        # In chunks: what is decoded ahead of the reader stays small.
        for start in range(0, len(paths), 256):
            yield from pool.map(decode_one, paths[start : start + 256])


def _judge_broken(broken: Sequence[str], total: int) -> None:
    if not broken:
        return
    named = "; ".join(broken[:MAX_NAMED]) + ("; ..." if len(broken) > MAX_NAMED else "")
    counted = f"{len(broken)} of {total} images cannot be read"
    if len(broken) > MAX_BROKEN_SHARE * total:
        message = f"{counted}, more than {MAX_BROKEN_SHARE:.0%}: {named}"
        raise UserError(message)
    logger.warning("%s and are left out: %s", counted, named)
