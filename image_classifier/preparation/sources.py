"""Sources of images: a folder, or an archive of one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from container.classifier.channel import is_ignored
from container.classifier.errors import UserError
from container.classifier.vocabulary import IMAGE_SUFFIXES
from image_classifier.preparation import archives
from image_classifier.preparation.findings import Finding

# Image formats that the training program does not read.
UNSUPPORTED = frozenset(
    {".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".psd", ".svg", ".ico"}
)


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
        UserError: the source is missing, is neither a folder nor an archive, or has no such folder.
    """
    if source.is_dir():
        yield _folder_of(source, within, source)
    elif archives.is_archive(source):
        with archives.unpack(source, unpack_in, quiet=quiet) as folder:
            yield _folder_of(folder, within, source)
    else:
        problem = "is neither a folder nor an archive" if source.exists() else "does not exist"
        raise UserError(
            f"{source} {problem}: name a folder or one of {', '.join(archives.SUFFIXES)}"
        )


def _folder_of(folder: Path, within: str, source: Path) -> Path:
    found = folder / within
    if not found.is_dir() or not found.resolve().is_relative_to(folder.resolve()):
        folders = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_dir()))
        raise UserError(f"{source} has no folder {within}; it has {folders or 'no folders'}")
    return found


def list_images(folder: Path) -> tuple[list[str], list[Finding]]:
    """List a folder's images.

    Returns:
        Sorted paths in the folder, with slashes, and findings about what was left out.

    Raises:
        UserError: it contains no image.
    """
    images: list[str] = []
    findings: list[Finding] = []
    for directory, folders, files in os.walk(folder):
        relative = Path(directory).relative_to(folder)
        folders[:] = sorted(name for name in folders if not is_ignored(name))
        for name in folders:
            if Path(directory, name).is_symlink():
                text = "links to folders are not followed: put the folder there"
                findings.append(Finding("link", (relative / name).as_posix(), text))
        for name in sorted(name for name in files if not is_ignored(name)):
            path, suffix = (relative / name).as_posix(), Path(name).suffix.lower()
            if suffix in UNSUPPORTED:
                text = f"the training program does not read {suffix}: convert it to {_suffixes()}"
                findings.append(Finding("unsupported", path, text))
            elif suffix in IMAGE_SUFFIXES and Path(directory, name).is_file():
                images.append(path)
            elif suffix in IMAGE_SUFFIXES:
                # Reading a pipe would block forever.
                findings.append(Finding("no-file", path, "a broken link, a pipe or a device"))
    if not images:
        raise UserError(f"found no image: expected files that end with {_suffixes()}")
    return sorted(images), findings


def _suffixes() -> str:
    return ", ".join(sorted(IMAGE_SUFFIXES))
