"""Unpacks zip and tar archives safely: no entry can leave the folder or fill the disk."""

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO

from tqdm import tqdm

from container.classifier.errors import UserError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

# An image of 50 megapixels has 200 MB as BMP; training does not read larger ones.
MAX_FILE_BYTES = 200_000_000

# Left free on the disk.
SPARE_BYTES = 500_000_000

CHUNK_BYTES = 1 << 20

# What the standard library raises on damaged contents. KeyError: a hard link to a missing entry.
DAMAGED_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError)
DAMAGED_TAR = (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, KeyError)

# Flag of a zip entry.
ENCRYPTED = 1


def is_archive(path: Path) -> bool:
    """Return whether a file is an archive, by its name."""
    return path.is_file() and path.name.lower().endswith(SUFFIXES)


@contextmanager
def unpack(archive: Path, parent: Path | None = None, *, quiet: bool = False) -> Iterator[Path]:
    """Unpack an archive into a temporary folder.

    Args:
        archive: A zip, or a tar, compressed or not.
        parent: Where to create the temporary folder; None: in the system's temporary folder.
        quiet: No progress bar.

    Raises:
        UserError: it is damaged, has an entry or a link that leaves the folder, or does not fit
            on the disk.
    """
    entries_of = _zip_entries if archive.name.lower().endswith(".zip") else _tar_entries
    with TemporaryDirectory(prefix=".unpacked-", dir=parent) as folder:
        try:
            with closing(entries_of(archive)) as entries:
                bar = tqdm(entries, desc="unpack", unit=" files", disable=quiet or None)
                _write(archive, bar, Path(folder))
        except (*DAMAGED_ZIP, *DAMAGED_TAR) as error:
            raise UserError(f"{archive} is damaged ({error}): download or copy it again") from error
        yield Path(folder)


def _zip_entries(archive: Path) -> Generator[tuple[str, IO[bytes]]]:
    """Yield names and contents of files."""
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            _check_name(archive, info.filename, is_link=stat.S_ISLNK(info.external_attr >> 16))
            if info.flag_bits & ENCRYPTED:
                raise UserError(f"{archive} is encrypted: unpack it first, and name the folder")
            if not info.is_dir():
                yield info.filename, opened.open(info)


def _tar_entries(archive: Path) -> Generator[tuple[str, IO[bytes]]]:
    """Yield names and contents of files."""
    with tarfile.open(archive) as opened:
        for member in opened:
            is_absolute = member.islnk() and PurePosixPath(member.linkname).is_absolute()
            _check_name(archive, member.name, is_link=member.issym() or is_absolute)
            if member.islnk():
                # A hard link is a second name of another entry of this archive.
                _check_name(archive, member.linkname)
            is_file = member.isfile() or member.islnk()
            if is_file and (content := opened.extractfile(member)):
                yield member.name, content


def _check_name(archive: Path, name: str, *, is_link: bool = False) -> None:
    """Check that an entry does not leave the folder, by its name or as a link."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise UserError(f"{archive} contains {name!r}, which leaves the folder: it is not unpacked")
    if is_link:
        raise UserError(f"{archive} contains the link {name!r}: pack the file itself")


def _write(archive: Path, entries: Iterable[tuple[str, IO[bytes]]], folder: Path) -> None:
    free = shutil.disk_usage(folder).free - SPARE_BYTES
    for name, content in entries:
        target = folder / name.replace("\\", "/")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with content, target.open("xb") as file:
                free -= _copy(archive, name, content, file, free)
        except (FileExistsError, NotADirectoryError) as error:
            raise UserError(
                f"{archive} contains {name!r} twice, or as a file and a folder: repack it"
            ) from error
        except OSError as error:
            raise UserError(
                f"{archive}: {name[:80]!r} cannot be unpacked: {error.strerror or error}"
            ) from error


def _copy(archive: Path, name: str, content: IO[bytes], file: IO[bytes], free: int) -> int:
    """Copy one file and return its size, which can differ from the size in the header."""
    written = 0
    while chunk := content.read(CHUNK_BYTES):
        written += len(chunk)
        if written > MAX_FILE_BYTES:
            raise UserError(
                f"{archive} contains {name!r}, larger than {MAX_FILE_BYTES // 10**6} MB"
            )
        if written > free:
            raise UserError(f"{archive} does not fit on the disk: free disk space, or set TMPDIR")
        file.write(chunk)
    return written
