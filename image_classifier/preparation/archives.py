"""Archives of images: a zip or a tar, unpacked safely.

No entry can leave the folder or fill the disk.
"""

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Self, TypeAlias

from tqdm import tqdm

from container.classifier.errors import UserError
from container.classifier.image_files import visible_entries

UNPACKED_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

# An image of 50 megapixels has 200 MB as BMP; training does not read larger ones.
MAX_FILE_BYTES = 200_000_000

# ImageNet has 1.4 million files and 150 GB.
MAX_ENTRIES, MAX_TOTAL_BYTES = 3_000_000, 1_000_000_000_000

# A larger factor from the packed size is that of an archive that is made to fill the disk; zeros
# are packed a thousand times smaller, and links and sparse files need no space. For small archives
# the second limit applies.
MAX_EXPANSION, MIN_LIMIT_BYTES = 200, 1_000_000_000

# Folders in folders. The standard library removes them by recursion.
MAX_DEPTH = 100

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


@dataclass(frozen=True, slots=True)
class _Archive:
    """An archive, which can be in another one; as text, its name for messages."""

    path: Path
    name: str

    def __str__(self) -> str:
        return self.name


def unpack(source: Path, folder: Path, encoding: str | None = None, *, quiet: bool = False) -> None:
    """Unpack a zip or a tar, and the archives in it, into an empty folder.

    Args:
        source: A file with one of UNPACKED_SUFFIXES.
        folder: Where to unpack it.
        encoding: Of names in the archive that are not UTF-8.
        quiet: No progress bar.

    Raises:
        UserError: the archive is damaged or encrypted, does not fit on the disk, or has an entry
            that leaves the folder, is a link, a device or a pipe, or exceeds a limit.
    """
    _Unpacking(source, encoding, quiet=quiet).unpack(_Archive(source, str(source)), folder)


class _Unpacking:
    """Unpacks one source, with limits on everything in it together."""

    def __init__(self, source: Path, encoding: str | None, *, quiet: bool) -> None:
        self._source, self._encoding, self._quiet = source, encoding, quiet
        self._entries = 0
        self._bytes = 0
        self._max_bytes = max(MIN_LIMIT_BYTES, MAX_EXPANSION * source.stat().st_size)

    def unpack(self, archive: _Archive, folder: Path, depth: int = 0) -> None:
        """Unpack an archive, and the archives in it."""
        is_zip = archive.path.name.lower().endswith(".zip")
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
            suffix = next((end for end in UNPACKED_SUFFIXES if path.name.lower().endswith(end)), "")
            inner = path.with_name(path.name[: -len(suffix)] if suffix else path.name)
            if suffix and path.is_file() and inner.name and not inner.exists():
                inner.mkdir()
                name = f"{archive}, {path.relative_to(folder).as_posix()}"
                self.unpack(_Archive(path, name), inner, depth + 1)
                path.unlink()

    def _write(self, archive: _Archive, entries: Iterable[Entry], folder: Path) -> None:
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
        if self._bytes > self._max_bytes:
            raise UserError(
                f"{self._source} becomes more than {MAX_EXPANSION} times as large when it is "
                "unpacked, as an archive that is made to fill the disk: if you trust it, unpack it "
                "and name the folder"
            )


def _zip_entries(archive: _Archive, _: Path, encoding: str | None) -> Generator[Entry]:
    with zipfile.ZipFile(archive.path) as opened:
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


def _zip_name(archive: _Archive, info: zipfile.ZipInfo, encoding: str | None) -> str:
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


def _tar_entries(archive: _Archive, folder: Path, encoding: str | None) -> Generator[Entry]:
    with tarfile.open(archive.path, encoding=encoding or "utf-8", tarinfo=_Header) as opened:
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
            elif member.isdev():
                raise UserError(
                    f"{archive} contains {member.name!r}, a device or a pipe: pack files only"
                )
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


def _check_name(archive: _Archive, name: str, *, is_link: bool = False) -> None:
    """Check that an entry does not leave the folder, by its name or as a link."""
    path = PurePosixPath(name.replace("\\", "/"))
    is_absolute = path.is_absolute() or PureWindowsPath(name).is_absolute()
    if is_absolute or ".." in path.parts or "\0" in name:
        raise UserError(f"{archive} contains {name!r}, which leaves the folder: it is not unpacked")
    if len(path.parts) > MAX_DEPTH:
        raise UserError(
            f"{archive} contains {name[:80]!r}, in more than {MAX_DEPTH} folders: repack it"
        )
    if is_link:
        raise UserError(f"{archive} contains the link {name!r}: pack the file itself")


def _copy(archive: _Archive, name: str, content: IO[bytes], file: IO[bytes], free: int) -> int:
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
