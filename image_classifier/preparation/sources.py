"""Sources of images: a folder, or a zip or tar that is unpacked safely.

No entry of an archive can leave the folder or fill the disk.
"""

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
from container.classifier.labeled_images import visible_entries
from container.classifier.media_types import IMAGE_SUFFIXES
from image_classifier.preparation.findings import Finding

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

# Image formats that the training program does not read.
UNSUPPORTED = frozenset(
    {".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".psd", ".svg", ".ico"}
)

# An image of 50 megapixels has 200 MB as BMP; training does not read larger ones.
MAX_FILE_BYTES = 200_000_000

# Disk space that stays free.
SPARE_BYTES = 500_000_000

CHUNK_BYTES = 1 << 20

# What the standard library raises on damaged contents. KeyError: a hard link to a missing entry.
DAMAGED_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError)
DAMAGED_TAR = (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, KeyError)

# Flag of a zip entry.
ENCRYPTED = 1


@contextmanager
def open_source(
    source: Path, within: str = ".", unpack_in: Path | None = None, *, quiet: bool = False
) -> Iterator[Path]:
    """Yield a folder of a source; an archive is unpacked temporarily.

    Args:
        source: A folder or an archive.
        within: The folder's path in the source.
        unpack_in: Where to unpack an archive; None: in the system's temporary folder.
        quiet: No progress bar.

    Raises:
        UserError: the source is missing, is neither a folder nor an archive, or has no such folder;
            or the archive is damaged, has an entry or a link that leaves the folder, or does not
            fit on the disk.
    """
    if source.is_dir():
        yield _folder_of(source, within, source)
    elif source.is_file() and source.name.lower().endswith(ARCHIVE_SUFFIXES):
        with TemporaryDirectory(prefix=".unpacked-", dir=unpack_in) as folder:
            _unpack(source, Path(folder), quiet=quiet)
            yield _folder_of(Path(folder), within, source)
    else:
        problem = "is neither a folder nor an archive" if source.exists() else "does not exist"
        raise UserError(
            f"{source} {problem}: name a folder or one of {', '.join(ARCHIVE_SUFFIXES)}"
        )


def list_images(folder: Path) -> tuple[list[str], list[Finding]]:
    """List a folder's images.

    Returns:
        Sorted paths in the folder, with slashes, and findings about what was left out.

    Raises:
        UserError: it contains no image.
    """
    images: list[str] = []
    findings: list[Finding] = []
    for path in visible_entries(folder):
        name, suffix = path.relative_to(folder).as_posix(), path.suffix.lower()
        if path.is_dir():
            if path.is_symlink():
                text = "links to folders are not followed: put the folder there"
                findings.append(Finding("link", name, text))
        elif suffix in UNSUPPORTED:
            text = f"the training program does not read {suffix}: convert it to {_suffixes()}"
            findings.append(Finding("unsupported", name, text))
        elif suffix in IMAGE_SUFFIXES and path.is_file():
            images.append(name)
        elif suffix in IMAGE_SUFFIXES:
            # Reading a pipe would block forever.
            findings.append(Finding("no-file", name, "a broken link, a pipe or a device"))
    if not images:
        raise UserError(f"found no image: expected files that end with {_suffixes()}")
    return sorted(images), findings


def _folder_of(folder: Path, within: str, source: Path) -> Path:
    found = folder / within
    if not found.is_dir() or not found.resolve().is_relative_to(folder.resolve()):
        folders = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_dir()))
        raise UserError(f"{source} has no folder {within}; it has {folders or 'no folders'}")
    return found


def _suffixes() -> str:
    return ", ".join(sorted(IMAGE_SUFFIXES))


def _unpack(archive: Path, folder: Path, *, quiet: bool) -> None:
    entries_of = _zip_entries if archive.name.lower().endswith(".zip") else _tar_entries
    try:
        with closing(entries_of(archive)) as entries:
            bar = tqdm(entries, desc="unpack", unit=" files", disable=quiet or None)
            _write(archive, bar, folder)
    except (*DAMAGED_ZIP, *DAMAGED_TAR) as error:
        raise UserError(f"{archive} is damaged ({error}): download or copy it again") from error


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
