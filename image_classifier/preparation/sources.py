"""Sources of images: a folder, or an archive that is unpacked temporarily."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from container.classifier.errors import UserError
from container.classifier.image_files import find_images
from container.classifier.media_types import IMAGE_SUFFIXES
from container.classifier.split_names import normalized
from image_classifier.preparation.archives import UNPACKED_SUFFIXES, unpack
from image_classifier.preparation.conversion import CONVERTED
from image_classifier.preparation.findings import Finding


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
    elif source.is_file() and _is_unpacked(source.name):
        with TemporaryDirectory(prefix=".unpacked-", dir=unpack_in) as folder:
            unpack(source, Path(folder), encoding, quiet=quiet)
            yield _folder_of(Path(folder), within, source)
    else:
        problem = "is neither a folder nor an archive" if source.exists() else "does not exist"
        raise UserError(
            f"{source} {problem}: name a folder or one of {', '.join(UNPACKED_SUFFIXES)}"
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
        hints = {
            "archive": "is an archive: name it as the source, or several of them in one zip",
            "link": "is a link to a folder, which is not followed: put the folder there",
        }
        found = next((item for item in findings if item.kind in hints), None)
        hint = f"; {found.path} {hints[found.kind]}" if found else ""
        if found and found.kind == "archive" and not _is_unpacked(found.path or ""):
            hint = f"; {found.path} is {found.detail}"
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise UserError(f"found no images: expected files that end with {suffixes}{hint}")
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


def _is_unpacked(name: str) -> bool:
    return name.lower().endswith(UNPACKED_SUFFIXES)
