"""The images of a channel, decoded once into a cache on the job's disk."""

import hashlib
import inspect
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

from container.classifier import jpeg, machine, png, preprocessing, tiff
from container.classifier.environment import image_bytes
from container.classifier.errors import ImageError, UserError
from container.classifier.image_files import described
from container.classifier.labeled_images import LabeledFile
from container.classifier.lost_files import check_fraction
from container.classifier.preprocessing import Pixels, Preprocessing, preprocess
from container.training.data.cache import Cache
from container.training.progress_bar import ProgressBar
from container.training.sagemaker.stop import Stop

logger = logging.getLogger(__name__)

# Format of the cache entries; entries of another version are decoded again.
FORMAT_VERSION = 1

# A cache entry: pixels of shape (files, image_size, image_size, 3), of which broken images leave
# unused rows at the end; SHA-256; error messages by the indices of the broken files.
_Entry: TypeAlias = tuple[Pixels, str, Mapping[int, str]]


@dataclass(frozen=True, slots=True)
class ImageSet:
    """The readable images of a channel, in the order of its files."""

    pixels: Pixels
    """uint8 of shape (N, image_size, image_size, 3), mapped from disk, read-only."""

    labels: npt.NDArray[np.int64]
    """Indices into the class names, of shape (N,)."""

    paths: tuple[Path, ...]

    sha256: str
    """SHA-256 of the content and class name of all files."""

    def __len__(self) -> int:
        """Return N."""
        return len(self.labels)


def decode(
    files: Sequence[LabeledFile],
    class_names: Sequence[str],
    settings: Preprocessing,
    stop: Stop,
    name: str = "",
) -> ImageSet:
    """Decode files in parallel, unless their pixels are in this user's cache.

    `name` is the channel's, for the log.
    Broken images are logged and left out. If several processes need the same images, one decodes
    them and the others wait.

    Raises:
        UserError: more than 5 % are broken, or the disk has too little space for the pixels.
        Stopped: a stop was requested.
    """
    cache, key = Cache.of_this_user(), _key(files, settings)
    shape = (len(files), settings.image_size, settings.image_size, 3)
    gigabytes = math.prod(shape) / 1e9
    with cache.locked(key, stop) as partial:
        entry = _find(cache, key, shape)
        origin = "new" if entry is None else "cached"
        if entry is None:
            try:
                cache.reserve(partial, math.prod(shape))
                _decode_into(partial, math.prod(shape), files, settings, stop)
                cache.publish(key, partial)
            except OSError as error:
                raise UserError(
                    f"no room for {gigabytes:.2f} GB of decoded images in "
                    f"{cache.directory} ({error.strerror}): give the job a larger volume "
                    "(volume_size) or a smaller image_size"
                ) from error
            entry = _read(partial, shape)
    pixels, sha256, broken = entry
    numbers = f"files={len(files)} gigabytes={gigabytes:.2f}"
    if name:
        numbers += f" channel={name}"
    logger.info("decoded_images=%s %s cache=%s", origin, numbers, cache.directory)
    lost = [f"{files[i].path} ({reason})" for i, reason in broken.items()]
    check_fraction(lost, len(files))
    if lost:
        counted = f"{len(lost)} of {len(files)} images cannot be read"
        logger.warning("%s and are left out: %s", counted, described(lost))
    readable = [file for index, file in enumerate(files) if index not in broken]
    label_of = {name: label for label, name in enumerate(class_names)}
    return ImageSet(
        pixels[: len(readable)],
        np.array([label_of[file.class_name] for file in readable], dtype=np.int64),
        tuple(file.path for file in readable),
        sha256,
    )


def decoders() -> list[str]:
    """Return the code and the versions of the packages that decide the pixels of an image."""
    code = [inspect.getsource(module) for module in (jpeg, png, preprocessing, tiff)]
    return code + [metadata.version(name) for name in ("pillow", "pi-heif", "simplejpeg")]


def _key(files: Sequence[LabeledFile], settings: Preprocessing) -> str:
    """Return a hash of the files' state and of the preprocessing."""
    # With a higher limit of memory, fewer images are broken.
    parts = (FORMAT_VERSION, decoders(), image_bytes(), asdict(settings))
    digest = hashlib.sha256(ascii(parts).encode())
    for file in files:
        try:
            status = file.path.stat()
            # ctime changes with a file's permissions, and in a copy that keeps mtime.
            state = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        except OSError:
            # A broken image.
            state = None
        # Resolved, because local tuning links the same folder into every trial.
        digest.update(ascii((str(file.path.resolve()), file.class_name, state)).encode())
    return digest.hexdigest()


def _find(cache: Cache, key: str, shape: tuple[int, ...]) -> _Entry | None:
    file = cache.find(key)
    if file is None:
        return None
    with file:
        try:
            return _read(file, shape)
        except ValueError:
            logger.warning("%s is truncated: its images are decoded again", file.name)
            return None


def _read(file: BinaryIO, shape: tuple[int, ...]) -> _Entry:
    """Map the pixels of a cache entry, and read the JSON after them.

    Raises:
        ValueError: the entry is truncated.
    """
    file.seek(math.prod(shape))
    index = json.loads(file.read())
    pixels = np.memmap(file, dtype=np.uint8, mode="r", shape=shape)
    return pixels, index["sha256"], dict(index["broken"])


def _decode_into(
    file: BinaryIO,
    size_bytes: int,
    files: Sequence[LabeledFile],
    settings: Preprocessing,
    stop: Stop,
) -> None:
    broken: dict[int, str] = {}
    digest = hashlib.sha256()
    decoded = _decode_all([file.path for file in files], settings)
    with ProgressBar("decode", len(files)) as bar:
        for index, (pixels, sha256) in enumerate(decoded):
            stop.check()
            bar.update(1)
            if isinstance(pixels, ImageError):
                broken[index] = str(pixels)
                continue
            # Written, not mapped: written data does not count as memory of this process.
            file.write(pixels.data)
            digest.update(sha256 + files[index].class_name.encode())
    file.seek(size_bytes)
    document = {"sha256": digest.hexdigest(), "broken": list(broken.items())}
    file.write(json.dumps(document).encode())


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
        # In chunks, so that few decoded images wait for the reader.
        for start in range(0, len(paths), 256):
            yield from pool.map(decode_one, paths[start : start + 256])
