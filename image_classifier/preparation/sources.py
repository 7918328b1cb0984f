"""Where images come from: a folder, or an archive of one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from container.classifier.channel import is_ignored
from container.classifier.errors import UserError
from container.classifier.vocabulary import IMAGE_SUFFIXES
from image_classifier.preparation import archives
from image_classifier.preparation.findings import Finding

# Images, but none that the training program reads.
UNSUPPORTED = frozenset(
    {".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".psd", ".svg", ".ico"}
)


@dataclass(frozen=True, slots=True)
class Listing:
    """What lies in a folder."""

    images: tuple[str, ...]
    """Paths in the folder, with slashes, sorted."""

    findings: tuple[Finding, ...]
    """What was left out and might be missed."""


@contextmanager
def opened(
    source: Path, within: str = ".", beside: Path | None = None, *, quiet: bool = False
) -> Iterator[Path]:
    """Give a folder of a source; that of an archive is unpacked for as long as it is needed.

    Args:
        source: A folder or an archive.
        within: The folder's path in the source.
        beside: Where an archive is unpacked; None: where the system puts what is temporary.
        quiet: No progress bar.

    Raises:
        UserError: there is nothing, or neither a folder nor an archive, or no such folder in it.
    """
    if source.is_dir():
        yield _folder_of(source, within, source)
    elif archives.is_archive(source):
        with archives.unpacked(source, beside, quiet=quiet) as folder:
            yield _folder_of(folder, within, source)
    else:
        kinds = ", ".join(archives.SUFFIXES)
        what = "is neither a folder nor an archive" if source.exists() else "does not exist"
        message = f"{source} {what}: name a folder or one of {kinds}"
        raise UserError(message)


def _folder_of(folder: Path, within: str, source: Path) -> Path:
    """Return the folder `within` of a source that lies in `folder`."""
    found = folder / within
    if not found.is_dir() or not found.resolve().is_relative_to(folder.resolve()):
        there = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_dir()))
        message = f"{source} has no folder {within}; it has {there or 'none'}"
        raise UserError(message)
    return found


def listed(folder: Path) -> Listing:
    """List a folder's images.

    Raises:
        UserError: there is none.
    """
    images: list[str] = []
    findings: list[Finding] = []
    for directory, folders, files in os.walk(folder):
        relative = Path(directory).relative_to(folder)
        folders[:] = sorted(name for name in folders if not is_ignored(name))
        for name in folders:
            if Path(directory, name).is_symlink():
                text = "a link to a folder is not followed: name its target instead"
                findings.append(Finding("link", (relative / name).as_posix(), text))
        for name in sorted(files):
            path, suffix = (relative / name).as_posix(), Path(name).suffix.lower()
            if is_ignored(name):
                continue
            if suffix in IMAGE_SUFFIXES and not Path(directory, name).is_file():
                # Reading a pipe would wait for ever.
                findings.append(Finding("no-file", path, "leads nowhere, or is a pipe or a device"))
            elif suffix in IMAGE_SUFFIXES:
                images.append(path)
            elif suffix in UNSUPPORTED:
                text = f"{suffix} is not read by the training program: convert to {_suffixes()}"
                findings.append(Finding("unsupported", path, text))
    if not images:
        message = f"there is no image: expected files that end with {_suffixes()}"
        raise UserError(message)
    return Listing(tuple(sorted(images)), tuple(findings))


def _suffixes() -> str:
    return ", ".join(sorted(IMAGE_SUFFIXES))
