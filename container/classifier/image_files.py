"""The files of a data set: images by their content, and the others with a reason."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from container.classifier.media_types import IMAGE_FORMATS, IMAGE_SUFFIXES

ARCHIVE_SUFFIXES = (
    ".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".rar", ".7z", ".gz", ".bz2", ".xz",
)  # fmt: skip

# Camera raw formats, which contain small previews, and image formats without a fixed signature.
_RAW_SUFFIXES = frozenset({".dng", ".nef", ".cr2", ".cr3", ".arw", ".raw"})
_UNSUPPORTED_SUFFIXES = _RAW_SUFFIXES | {".psd", ".svg", ".ico", ".jp2", ".dcm"}

# Tables, documents, models and videos that data sets contain.
_OTHER_SUFFIXES = frozenset({
        ".mat", ".npy", ".npz", ".pdf", ".h5", ".hdf5", ".xls", ".xlsx", ".doc", ".docx", ".pkl",
        ".pickle", ".pt", ".pth", ".onnx", ".db", ".sqlite", ".parquet", ".mp4", ".avi", ".mov",
        ".mkv", ".webm", ".wav", ".mp3", ".tfrecord", ".tfrecords", ".rec", ".idx",
})  # fmt: skip

# Files and folders that archives, desktops, editors and network storage leave behind.
_IGNORED = re.compile(
    r"\.|(__MACOSX|Thumbs\.db|ehthumbs\.db|desktop\.ini|Icon\r|@eaDir|#recycle|#snapshot"
    r"|\$RECYCLE\.BIN|System Volume Information|lost\+found|__pycache__)$",
    re.IGNORECASE,
)

# The start of a file, by which its format is recognized.
_START_BYTES = 512

_FORMATS = (
    ("JPEG", re.compile(rb"\xff\xd8\xff")),
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("GIF", re.compile(rb"GIF8[79]a")),
    ("WEBP", re.compile(rb"RIFF.{4}WEBP", re.DOTALL)),
    # With the size of one of its headers.
    ("BMP", re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL)),
    ("TIFF", re.compile(rb"II[\x2a\x2b]\0|MM\0[\x2a\x2b]")),
    ("AVIF", re.compile(rb".{4}ftypavi[fs]", re.DOTALL)),
    ("HEIF", re.compile(rb".{4}ftyp(hei[cxmsf]|hev[cxms]|mif1|msf1)", re.DOTALL)),
    ("JPEG2000", re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51")),
    ("PPM", re.compile(rb"P[1-6]\s+(#[^\n]*\n\s*)*\d+\s+\d+\s")),
    ("PSD", re.compile(rb"8BPS\0[\x01\x02]")),
)

# Kinds of unused files that can be images.
LOST = frozenset({"no-file", "unsupported", "unknown"})


@dataclass(frozen=True, slots=True)
class Unused:
    """A file that is not used, with the reason."""

    name: str
    """Its path in the folder, with slashes."""

    kind: str
    """link, no-file, unsupported, archive, other-file or unknown."""

    reason: str

    format: str = ""
    """Pillow's name of an image's format that training does not read."""

    @property
    def is_lost(self) -> bool:
        """Whether it can be an image."""
        return self.kind in LOST


def is_ignored(name: str) -> bool:
    """Return whether a file or folder of this name is hidden or left behind by a program."""
    return _IGNORED.match(name) is not None


def visible_entries(directory: Path) -> list[Path]:
    """Return the files and folders at any depth that are not ignored, sorted."""
    return sorted(
        path
        for path in directory.rglob("*")
        if not any(map(is_ignored, path.relative_to(directory).parts))
    )


def find_images(directory: Path) -> tuple[list[str], list[Unused]]:
    """List the images of a folder, and the files that are not used.

    A file is an image by its suffix or by its content.

    Returns:
        Sorted paths in the folder, with slashes, and the other files.
    """
    images: list[str] = []
    unused: list[Unused] = []
    for path in visible_entries(directory):
        name = path.relative_to(directory).as_posix()
        if path.is_dir():
            if path.is_symlink():
                text = "links to folders are not followed: put the folder there"
                unused.append(Unused(name, "link", text))
        elif not path.is_file():
            # Reading a pipe would block forever.
            what = "No such file or directory" if path.is_symlink() else "a pipe or a device"
            unused.append(Unused(name, "no-file", what))
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            images.append(name)
        elif found := _why_unused(path, name):
            unused.append(found)
        else:
            images.append(name)
    return sorted(images), unused


def image_format(start: bytes) -> str:
    """Return Pillow's name of an image's format by the first bytes; empty if it is unknown."""
    return next((name for name, magic in _FORMATS if magic.match(start)), "")


def described(files: Sequence[str]) -> str:
    """Return the first names of files."""
    return "; ".join(files[:10]) + ("; ..." if len(files) > 10 else "")  # noqa: PLR2004


def _why_unused(path: Path, name: str) -> Unused | None:
    """Return why a file without an image's suffix is not used; None if it is an image."""
    if path.name.lower().endswith(ARCHIVE_SUFFIXES):
        return Unused(name, "archive", "an archive: unpack it")
    try:
        with path.open("rb") as file:
            start = file.read(_START_BYTES)
    except OSError as error:
        return Unused(name, "no-file", error.strerror or str(error))
    found, suffix = image_format(start), path.suffix.lower()
    if found in IMAGE_FORMATS and suffix not in _RAW_SUFFIXES:
        return None
    if found or suffix in _UNSUPPORTED_SUFFIXES:
        kind = suffix if suffix in _RAW_SUFFIXES else found
        text = f"training does not read {kind or suffix}: convert it to PNG"
        return Unused(name, "unsupported", text, "" if suffix in _RAW_SUFFIXES else found)
    if suffix in _OTHER_SUFFIXES or _is_text(start):
        return Unused(name, "other-file", "not an image")
    return Unused(name, "unknown", "its format is unknown")


def _is_text(start: bytes) -> bool:
    """Return whether a file is text, or of a format that tables and documents have."""
    return b"\0" not in start and not re.search(rb"[\x01-\x08\x0e-\x1a]", start)
