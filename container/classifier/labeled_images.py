"""The labeled images of a channel, in one of two layouts.

Class folders: `<class name>/.../<file>.jpg`. Or the label in the file name, with all files in one
folder: `<anything>_<class name>.png`. Images are not decoded here.
"""

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from container.classifier.errors import UserError
from container.classifier.media_types import IMAGE_SUFFIXES

logger = logging.getLogger(__name__)

LABEL_IN_NAME = re.compile(r"_(?P<label>[^_.]+)\.[^.]+$")

# Files and folders that archives and desktops leave behind.
_IGNORED = re.compile(r"\.|__MACOSX$|Thumbs\.db$")

# Such as "left", "hand_left" and "3L".
_LEFT_AND_RIGHT = (
    (re.compile(r"left", re.IGNORECASE), "right"),
    (re.compile(r"(?<![a-z])L$"), "R"),
)


@dataclass(frozen=True, slots=True)
class LabeledFile:
    """An image file and the name of its class."""

    path: Path
    class_name: str


def is_ignored(name: str) -> bool:
    """Return whether a file or folder of this name is hidden or left behind by a desktop."""
    return _IGNORED.match(name) is not None


def visible_entries(directory: Path) -> list[Path]:
    """Return the files and folders at any depth that are not ignored, sorted."""
    return sorted(
        path
        for path in directory.rglob("*")
        if not any(map(is_ignored, path.relative_to(directory).parts))
    )


def labeled_files(directory: Path) -> list[LabeledFile]:
    """Find a channel's images, sorted by path.

    Raises:
        UserError: the channel has no image, an image has no label, both layouts are mixed, or a
            folder is a symbolic link.
    """
    entries = visible_entries(directory)
    if links := [path for path in entries if path.is_symlink() and path.is_dir()]:
        raise UserError(
            f"{links[0]} is a link to a folder, and links are not followed: put the folder there"
        )
    paths = [
        path for path in entries if path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir()
    ]
    if not paths:
        raise UserError(
            f"no image under {directory}: expected <class name>/<file>.jpg or "
            "<name>_<class name>.png; check the channel's name, its S3 prefix and the role"
        )
    in_folders = [path for path in paths if path.parent != directory]
    if in_folders and len(in_folders) < len(paths):
        loose = next(path for path in paths if path.parent == directory)
        raise UserError(
            f"{directory} mixes class folders with loose images such as {loose.name}: "
            "put every image into its class folder"
        )
    _warn_about_others(directory, entries, paths)
    if in_folders:
        return [LabeledFile(path, path.relative_to(directory).parts[0]) for path in paths]
    files = [LabeledFile(path, _label_in_name(path)) for path in paths]
    check_labels_in_names(files)
    return files


def class_names_of(files: Sequence[LabeledFile]) -> tuple[str, ...]:
    """Return the sorted names of the classes.

    Raises:
        UserError: there are fewer than two classes, or a name has control characters or is not
            UTF-8.
    """
    names = tuple(sorted({file.class_name for file in files}))
    for name in names:
        # Control characters would start new lines in the log; surrogates (Cs) are not UTF-8.
        if any(unicodedata.category(character) in {"Cc", "Cs"} for character in name):
            raise UserError(
                f"the class name {name!r} has control characters or is not UTF-8: rename the class"
            )
    if len(names) < 2:  # noqa: PLR2004
        raise UserError(
            f"a classifier needs at least two classes, the training channel has one: {names[0]!r}"
        )
    return names


def mirrored_classes(class_names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of classes that differ in left and right only, such as 3L and 3R."""
    known = {name.lower(): name for name in class_names}
    pairs = []
    for name in class_names:
        for left, right in _LEFT_AND_RIGHT:
            mirrored = known.get(left.sub(right, name).lower())
            if mirrored is not None and mirrored != name:
                pairs.append((name, mirrored))
    return pairs


def check_classes(files: Sequence[LabeledFile], class_names: Sequence[str], channel: str) -> None:
    """Check that a channel's images belong to the classes of the training channel.

    Raises:
        UserError: the channel has other classes.
    """
    counts = Counter(file.class_name for file in files)
    if unknown := sorted(counts.keys() - set(class_names)):
        raise UserError(
            f"the {channel} channel has classes that training lacks: {', '.join(unknown[:10])}; "
            f"training has {', '.join(class_names[:10])}"
        )


def check_labels_in_names(files: Sequence[LabeledFile]) -> None:
    """Reject file names that end with image numbers, such as IMG_0001.jpg, instead of labels."""
    counts = Counter(file.class_name for file in files)
    if len(files) > 2 and len(counts) == len(files):  # noqa: PLR2004
        raise UserError(
            f"labels were read from the file names, such as {files[0].class_name!r} from "
            f"{files[0].path.name}, and every image has a different label: put the images into "
            "class folders, or name them <name>_<class name>.png"
        )


def _warn_about_others(directory: Path, entries: Sequence[Path], images: Sequence[Path]) -> None:
    """Log the files that are not images of a supported type, and the empty folders."""
    known = set(images)
    if others := [path for path in entries if path not in known and path.is_file()]:
        logger.warning(
            "%d files are ignored because they are not %s, such as %s",
            len(others),
            ", ".join(sorted(IMAGE_SUFFIXES)),
            others[0],
        )
    classes = {path.relative_to(directory).parts[0] for path in images}
    folders = [path.name for path in entries if path.parent == directory and path.is_dir()]
    if empty := [name for name in folders if name not in classes]:
        logger.warning("folders without images are not classes: %s", ", ".join(empty[:10]))


def _label_in_name(path: Path) -> str:
    if match := LABEL_IN_NAME.search(path.name):
        return match["label"]
    raise UserError(
        f"{path.name} has no label: name images outside of class folders <name>_<class name>.png"
    )
