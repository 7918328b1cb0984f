"""Sources of images: a folder, or a zip or tar that is unpacked safely.

No entry of an archive can leave the folder or fill the disk.
"""

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from tempfile import TemporaryDirectory
from typing import IO, Self, TypeAlias

from tqdm import tqdm

from container.classifier.errors import UserError
from container.classifier.image_files import find_images, visible_entries
from container.classifier.media_types import IMAGE_SUFFIXES
from container.classifier.split_names import normalized
from image_classifier.preparation.conversion import CONVERTED
from image_classifier.preparation.findings import Finding

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

# An image of 50 megapixels has 200 MB as BMP; training does not read larger ones.
MAX_FILE_BYTES = 200_000_000

# ImageNet has 1.4 million files and 150 GB.
MAX_ENTRIES, MAX_TOTAL_BYTES = 3_000_000, 1_000_000_000_000

# Archives in archives, such as the train.zip and test.zip of a competition.
MAX_NESTED = 2

# Disk space that stays free.
SPARE_BYTES = 500_000_000

# Also of a tar's headers that are read into memory: long names, and further attributes.
CHUNK_BYTES = MAX_HEADER_BYTES = 1 << 20
EXTENDED_HEADERS = b"xgXLK"

# Name and content of an entry; None for what has no content, such as a folder.
Entry: TypeAlias = tuple[str, IO[bytes] | None]

# What the standard library raises on damaged contents.
DAMAGED_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError)
DAMAGED_TAR = (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError)

# Flags and a method of zip entries.
ENCRYPTED, IS_UTF_8, DEFLATE_64 = 1, 0x800, 9


@contextmanager
def open_source(
    source: Path,
    within: str = ".",
    unpack_in: Path | None = None,
    *,
    encoding: str | None = None,
    quiet: bool = False,
) -> Iterator[Path]:
    """Yield a folder of a source; an archive is unpacked temporarily.

    Args:
        source: A folder or an archive.
        within: The folder's path in the source.
        unpack_in: Where to unpack an archive; None: in the system's temporary folder.
        encoding: Of names in the archive that are not UTF-8.
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
            _Unpacking(source, encoding, quiet=quiet).unpack(source, Path(folder))
            yield _folder_of(Path(folder), within, source)
    else:
        problem = "is neither a folder nor an archive" if source.exists() else "does not exist"
        raise UserError(
            f"{source} {problem}: name a folder or one of {', '.join(ARCHIVE_SUFFIXES)}"
        )


def list_images(folder: Path, used: Collection[str] = ()) -> tuple[list[str], list[Finding]]:
    """List a folder's images, those too that are converted.

    Args:
        folder: The folder.
        used: Files in it that are used otherwise, such as a manifest.

    Returns:
        Sorted paths in the folder, with slashes, and findings about what was left out.

    Raises:
        UserError: it contains no image, or a link that leads out of the folder.
    """
    images, unused = find_images(folder)
    images += [item.name for item in unused if item.format in CONVERTED]
    findings = [
        Finding(item.kind, item.name, item.reason)
        for item in unused
        if item.format not in CONVERTED and item.name not in used
    ]
    root = folder.resolve()
    for name in images:
        path = folder / name
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            raise UserError(
                f"{path} is a link to {path.resolve()}, outside of the source: put the file there"
            )
    if not images:
        archives = [item.path for item in findings if item.kind == "archive"]
        hint = f"; {archives[0]} is an archive: name it as the source" if archives else ""
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise UserError(f"found no image: expected files that end with {suffixes}{hint}")
    return sorted(images), findings


def _folder_of(folder: Path, within: str, source: Path) -> Path:
    found = _normalized_path(folder, within)
    if not found.is_dir() or not found.resolve().is_relative_to(folder.resolve()):
        folders = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_dir()))
        raise UserError(f"{source} has no folder {within}; it has {folders or 'no folders'}")
    return found


def _normalized_path(folder: Path, within: str) -> Path:
    """Return a path in a folder, whose names can be in another form of Unicode."""
    found = folder
    for part in Path(within).parts:
        same = found / part
        if not same.exists() and found.is_dir():
            form = normalized(part)
            same = next((path for path in found.iterdir() if normalized(path.name) == form), same)
        found = same
    return found


class _Unpacking:
    """Unpacks one source, with limits on everything in it together."""

    def __init__(self, source: Path, encoding: str | None, *, quiet: bool) -> None:
        self._source, self._encoding, self._quiet = source, encoding, quiet
        self._entries = 0
        self._bytes = 0

    def unpack(self, archive: Path, folder: Path, depth: int = 0) -> None:
        """Unpack an archive, and the archives in it."""
        is_zip = archive.name.lower().endswith(".zip")
        read = _zip_entries if is_zip else _tar_entries
        try:
            with closing(read(archive, folder, self._encoding)) as entries:
                bar = tqdm(entries, desc="unpack", unit=" files", disable=self._quiet or None)
                self._write(archive, bar, folder)
        except (*DAMAGED_ZIP, *DAMAGED_TAR) as error:
            raise UserError(f"{archive} is damaged ({error}): download or copy it again") from error
        if depth == MAX_NESTED:
            return
        for path in visible_entries(folder):
            suffix = next((end for end in ARCHIVE_SUFFIXES if path.name.lower().endswith(end)), "")
            inner = path.with_name(path.name[: -len(suffix)] if suffix else path.name)
            if suffix and path.is_file() and inner.name and not inner.exists():
                inner.mkdir()
                self.unpack(path, inner, depth + 1)
                path.unlink()

    def _write(self, archive: Path, entries: Iterable[Entry], folder: Path) -> None:
        free = shutil.disk_usage(folder).free - SPARE_BYTES
        for name, content in entries:
            self._entries += 1
            self._check_limits()
            if content is None:
                continue
            target = folder / name.replace("\\", "/")
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                with content, target.open("xb") as file:
                    written = _copy(archive, name, content, file, free)
            except (FileExistsError, NotADirectoryError) as error:
                raise UserError(
                    f"{archive} contains {name!r} twice, or as a file and a folder: repack it"
                ) from error
            except OSError as error:
                raise UserError(
                    f"{archive}: {name[:80]!r} cannot be unpacked: {error.strerror or error}"
                ) from error
            free -= written
            self._bytes += written
            self._check_limits()

    def _check_limits(self) -> None:
        if self._entries > MAX_ENTRIES or self._bytes > MAX_TOTAL_BYTES:
            raise UserError(
                f"{self._source} contains more than {MAX_ENTRIES} entries or "
                f"{MAX_TOTAL_BYTES // 10**9} GB: split it, or unpack it and name the folder"
            )


def _zip_entries(archive: Path, _: Path, encoding: str | None) -> Generator[Entry]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            name = _zip_name(archive, info, encoding)
            _check_name(archive, name, is_link=stat.S_ISLNK(info.external_attr >> 16))
            if info.flag_bits & ENCRYPTED:
                raise UserError(f"{archive} is encrypted: unpack it first, and name the folder")
            if info.compress_type == DEFLATE_64:
                raise UserError(
                    f"{archive} is compressed with Deflate64, as Windows does with large files: "
                    "unpack it with Windows or 7-Zip, and name the folder"
                )
            # Windows ends the names of folders with a backslash.
            yield name, None if name.endswith(("/", "\\")) else opened.open(info)


def _zip_name(archive: Path, info: zipfile.ZipInfo, encoding: str | None) -> str:
    """Return an entry's name: many programs write UTF-8 without its flag."""
    if info.flag_bits & IS_UTF_8 or info.filename.isascii():
        return info.filename
    data = info.filename.encode("cp437")
    try:
        return data.decode(encoding or "utf-8")
    except (UnicodeDecodeError, LookupError) as error:
        raise UserError(
            f"{archive} contains {info.filename!r}, which is not {encoding or 'UTF-8'}: name the "
            "encoding with --encoding, such as cp1252, gbk or shift_jis"
        ) from error


class _Header(tarfile.TarInfo):
    """A header that cannot fill the memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Parse a header; reject an extended one that is too large."""
        found = super().frombuf(buf, encoding, errors)
        if found.type in EXTENDED_HEADERS and found.size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"an entry's extended header has {found.size} bytes")
        return found


def _tar_entries(archive: Path, folder: Path, encoding: str | None) -> Generator[Entry]:
    with tarfile.open(archive, encoding=encoding or "utf-8", tarinfo=_Header) as opened:
        while member := opened.next():
            is_absolute = member.islnk() and PurePosixPath(member.linkname).is_absolute()
            _check_name(archive, member.name, is_link=member.issym() or is_absolute)
            if member.islnk():
                # A hard link is a second name of an earlier entry, which is unpacked.
                _check_name(archive, member.linkname)
                target = folder / member.linkname.replace("\\", "/")
                if not target.is_file():
                    raise tarfile.ReadError(f"{member.name!r} is a link to a missing entry")
                yield member.name, target.open("rb")
            else:
                yield member.name, opened.extractfile(member) if member.isfile() else None
            # The list of all entries is not needed, and can be large.
            opened.members.clear()  # type: ignore[attr-defined]
        _check_end(opened)


def _check_end(opened: tarfile.TarFile) -> None:
    """Check that a tar ends with zeros or after an entry: `tarfile` ends at any invalid header."""
    if opened.fileobj:
        opened.fileobj.seek(opened.offset)
        block = opened.fileobj.read(tarfile.BLOCKSIZE)
        if any(block) or len(block) not in {0, tarfile.BLOCKSIZE}:
            raise tarfile.ReadError("it ends early, or an entry's header is damaged")


def _check_name(archive: Path, name: str, *, is_link: bool = False) -> None:
    """Check that an entry does not leave the folder, by its name or as a link."""
    path = PurePosixPath(name.replace("\\", "/"))
    is_absolute = path.is_absolute() or PureWindowsPath(name).is_absolute()
    if is_absolute or ".." in path.parts or "\0" in name:
        raise UserError(f"{archive} contains {name!r}, which leaves the folder: it is not unpacked")
    if is_link:
        raise UserError(f"{archive} contains the link {name!r}: pack the file itself")


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
