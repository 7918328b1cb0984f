"""Zip and tar archives, unpacked so that nothing in them reaches out of the folder."""

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO

from tqdm import tqdm

from container.classifier.errors import UserError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

# An image of 50 megapixels as BMP has 200 MB: what is larger is none that training reads.
MAX_FILE_BYTES = 200_000_000

# Left on the disk whatever an archive says that it holds.
SPARE_BYTES = 500_000_000

CHUNK_BYTES = 1 << 20

# What else the standard library raises of damaged or unknown contents.
DAMAGED = (lzma.LZMAError, EOFError, RuntimeError)

# Of a zip entry's flags.
ENCRYPTED = 1


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    size: int
    open: Callable[[], IO[bytes] | None]


def is_archive(path: Path) -> bool:
    """Tell by the name whether a file is an archive."""
    return path.is_file() and path.name.lower().endswith(SUFFIXES)


@contextmanager
def unpacked(archive: Path, beside: Path | None = None, *, quiet: bool = False) -> Iterator[Path]:
    """Unpack an archive for as long as it is needed.

    Args:
        archive: A zip, or a tar, compressed or not.
        beside: Where to put the temporary folder; None: where the system has such.
        quiet: No progress bar.

    Raises:
        UserError: it is damaged, holds an entry or a link that leaves the folder, or would fill
            the disk.
    """
    with TemporaryDirectory(prefix=".unpacked-", dir=beside) as folder:
        root = Path(folder)
        try:
            _unpack(archive, root, quiet=quiet)
        except (zipfile.BadZipFile, tarfile.TarError, zlib.error, *DAMAGED) as error:
            message = f"{archive} is damaged ({error}): fetch it again"
            raise UserError(message) from error
        yield root


def _unpack(archive: Path, root: Path, *, quiet: bool) -> None:
    free = shutil.disk_usage(root).free - SPARE_BYTES
    if archive.name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as opened:
            _write_all(archive, list(_zip_entries(archive, opened)), root, free, quiet=quiet)
    else:
        with tarfile.open(archive) as opened_tar:
            entries = list(_tar_entries(archive, opened_tar))
            _write_all(archive, entries, root, free, quiet=quiet)


def _zip_entries(archive: Path, opened: zipfile.ZipFile) -> Iterator[_Entry]:
    for info in opened.infolist():
        _check_name(archive, info.filename)
        if stat.S_ISLNK(info.external_attr >> 16):
            message = f"{archive} holds the link {info.filename!r}: pack the files themselves"
            raise UserError(message)
        if info.flag_bits & ENCRYPTED:
            message = f"{archive} is encrypted: unpack it first, and name the folder"
            raise UserError(message)
        if not info.is_dir():
            yield _Entry(info.filename, info.file_size, lambda info=info: opened.open(info))  # type: ignore[misc]


def _tar_entries(archive: Path, opened: tarfile.TarFile) -> Iterator[_Entry]:
    for member in opened:
        _check_name(archive, member.name)
        if member.issym() or (member.islnk() and PurePosixPath(member.linkname).is_absolute()):
            message = f"{archive} holds the link {member.name!r}: pack the files themselves"
            raise UserError(message)
        if member.islnk():
            # One file under two names: its content is that of an entry of this very archive.
            _check_name(archive, member.linkname)
        if member.isfile() or member.islnk():
            yield _Entry(member.name, member.size, lambda member=member: _content(opened, member))  # type: ignore[misc]


def _content(opened: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes] | None:
    try:
        return opened.extractfile(member)
    except KeyError as error:
        raise tarfile.TarError(str(error)) from error


def _check_name(archive: Path, name: str) -> None:
    """Refuse names that lead out of the folder, with either kind of slash."""
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or "\0" in name:
        message = f"{archive} holds {name!r}, which leaves the folder: it is not unpacked"
        raise UserError(message)


def _write_all(archive: Path, entries: list[_Entry], root: Path, free: int, *, quiet: bool) -> None:
    bar = tqdm(entries, desc="unpack", unit=" files", disable=quiet or None)
    for entry in bar:
        target = root / entry.name.replace("\\", "/")
        content = entry.open()
        if content is None:
            continue
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with content, target.open("xb") as file:
                free -= _copy(archive, entry.name, content, file, free)
        except (FileExistsError, NotADirectoryError) as error:
            message = f"{archive} holds {entry.name!r} twice, as one thing and another: repack it"
            raise UserError(message) from error
        except OSError as error:
            message = (
                f"{archive}: {entry.name[:80]!r} cannot be unpacked: {error.strerror or error}"
            )
            raise UserError(message) from error


def _copy(archive: Path, name: str, content: IO[bytes], file: IO[bytes], free: int) -> int:
    """Copy one file; return its bytes. Counted as they come: what a header says may be a lie."""
    written = 0
    while chunk := content.read(CHUNK_BYTES):
        written += len(chunk)
        if written > MAX_FILE_BYTES:
            message = f"{archive} holds {name!r}, larger than {MAX_FILE_BYTES // 10**6} MB"
            raise UserError(message)
        if written > free:
            message = f"{archive} does not fit on the disk: free some room, or set TMPDIR"
            raise UserError(message)
        file.write(chunk)
    return written
