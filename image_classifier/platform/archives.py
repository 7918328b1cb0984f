"""Unpack the archives of jobs and models."""

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from container.classifier.errors import UserError

# Limit of a model's unpacked files: SageMaker's volumes have more space, laptops less.
_MAX_BYTES = 20_000_000_000

# What the standard library raises; KeyError for a link to a missing file, ValueError for a name
# with NUL.
_DAMAGED = (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, KeyError, ValueError)


def extract(archive: Path, folder: Path, *, max_bytes: int = _MAX_BYTES) -> None:
    """Extract a tar, compressed or not, into a folder, and no file outside it.

    The folder is created.

    Raises:
        UserError: the file is not an archive, or larger than `max_bytes` when it is unpacked.
    """
    require_archive(archive)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as opened:
            opened.extractall(folder, members=_limited(archive, opened, max_bytes), filter="data")
    except _DAMAGED as error:
        raise UserError(f"{archive} cannot be extracted: {error}") from None


def require_archive(path: Path) -> None:
    """Check that a file is a tar, compressed or not.

    Raises:
        UserError: it is not, or it does not exist.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist")
    try:
        tarfile.open(path).close()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except _DAMAGED:
        raise UserError(f"{path} is not an archive (.tar.gz)") from None


def _limited(archive: Path, opened: tarfile.TarFile, max_bytes: int) -> Iterator[tarfile.TarInfo]:
    total = 0
    for member in opened:
        total += member.size
        if total > max_bytes:
            raise UserError(f"{archive} has more than {max_bytes / 1e9:.0f} GB when it is unpacked")
        yield member
