"""The labeled images of a channel, in either layout that people have.

Class folders: `<class name>/.../<file>.jpg`. Or the label in the file's name, all in one folder:
`<anything>_<class name>.png`. Nothing is decoded here.
"""

import logging
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from container.classifier.errors import UserError
from container.classifier.preprocessing import SUFFIXES

logger = logging.getLogger(__name__)

LABEL_IN_NAME = re.compile(r"_(?P<label>[^_.]+)\.[^.]+$")

# Folders and files that archives and desktops leave behind.
LITTER = re.compile(r"^(\.|__MACOSX$|Thumbs\.db$)")


@dataclass(frozen=True, slots=True)
class LabeledFile:
    """An image's file and the name of its class."""

    path: Path
    class_name: str


def labeled_files(directory: Path) -> list[LabeledFile]:
    """Find a channel's images, sorted by path.

    Raises:
        UserError: no image is there, or some have no label.
    """
    entries = sorted(
        path for path in directory.rglob("*") if not _is_litter(path.relative_to(directory))
    )
    if links := [path for path in entries if path.is_symlink() and path.is_dir()]:
        message = (
            f"{links[0]} is a link to a folder, and those are not followed: put the folder there"
        )
        raise UserError(message)
    paths = [path for path in entries if path.suffix.lower() in SUFFIXES and not path.is_dir()]
    if not paths:
        message = (
            f"no image under {directory}: expected <class name>/<file>.jpg or "
            "<name>_<class name>.png (is the channel's name right, its S3 prefix, the role?)"
        )
        raise UserError(message)
    in_folders = [path for path in paths if path.parent != directory]
    if in_folders and len(in_folders) < len(paths):
        loose = next(path for path in paths if path.parent == directory)
        message = (
            f"{directory} mixes class folders with loose images such as {loose.name}: "
            "put every image into its class folder"
        )
        raise UserError(message)
    _warn_of_left_out(directory, entries, paths)
    if in_folders:
        return [LabeledFile(path, path.relative_to(directory).parts[0]) for path in paths]
    files = [LabeledFile(path, _label_in_name(path)) for path in paths]
    _check_labels_in_names(files)
    return files


def class_names_of(files: Sequence[LabeledFile]) -> tuple[str, ...]:
    """Return the sorted names of the classes.

    Raises:
        UserError: there are fewer than two, or one is no text.
    """
    names = tuple(sorted({file.class_name for file in files}))
    for name in names:
        # Control characters, which would make lines of their own in the log, and no UTF-8.
        if any(unicodedata.category(character) in {"Cc", "Cs"} for character in name):
            message = f"the class name {name!r} holds what is no text: rename it"
            raise UserError(message)
    if len(names) < 2:  # noqa: PLR2004
        message = (
            f"a classifier needs at least two classes, the training channel has one: {names[0]!r}"
        )
        raise UserError(message)
    return names


def split(
    files: Sequence[LabeledFile], fraction: float, seed: int
) -> tuple[list[LabeledFile], list[LabeledFile]]:
    """Split off the same share of every class, by `seed` alone.

    Returns:
        The files for training and for validation, both in the order of `files`.

    Raises:
        UserError: no class has enough images to give one away.
    """
    by_class: dict[str, list[int]] = defaultdict(list)
    for index, file in enumerate(files):
        by_class[file.class_name].append(index)
    random = np.random.default_rng(seed)
    held_out: set[int] = set()
    for indices in by_class.values():
        # At least one, as long as one remains to learn from.
        count = min(max(1, round(len(indices) * fraction)), len(indices) - 1)
        held_out.update(random.permutation(indices)[:count].tolist())
    if not held_out:
        message = "every class has a single image: too few to split validation off"
        raise UserError(message)
    training = [file for index, file in enumerate(files) if index not in held_out]
    return training, [files[index] for index in sorted(held_out)]


def check_classes(files: Sequence[LabeledFile], class_names: Sequence[str], channel: str) -> None:
    """Refuse images of a class that training does not know.

    Raises:
        UserError: there are some.
    """
    counts = Counter(file.class_name for file in files)
    if unknown := sorted(counts.keys() - set(class_names)):
        message = (
            f"the {channel} channel has classes that training lacks: {', '.join(unknown[:10])}; "
            f"training has {', '.join(class_names[:10])}"
        )
        raise UserError(message)


def _check_labels_in_names(files: Sequence[LabeledFile]) -> None:
    """Refuse names whose ends are numbers of images, such as IMG_0001.jpg, and no labels."""
    counts = Counter(file.class_name for file in files)
    if len(files) > 2 and len(counts) == len(files):  # noqa: PLR2004
        message = (
            f"labels were read from the files' names, such as {files[0].class_name!r} from "
            f"{files[0].path.name}, and every image got one of its own: put the images into "
            "class folders, or name them <name>_<class name>.png"
        )
        raise UserError(message)


def _warn_of_left_out(directory: Path, entries: Sequence[Path], images: Sequence[Path]) -> None:
    """Say what was found and is no image of a known kind."""
    known = set(images)
    if others := [path for path in entries if path not in known and path.is_file()]:
        kinds = ", ".join(sorted(SUFFIXES))
        logger.warning(
            "%d files are none of %s and are left out, such as %s", len(others), kinds, others[0]
        )
    classes = {path.relative_to(directory).parts[0] for path in images}
    folders = [path.name for path in entries if path.parent == directory and path.is_dir()]
    if empty := [name for name in folders if name not in classes]:
        logger.warning("folders without images are no classes: %s", ", ".join(empty[:10]))


def _label_in_name(path: Path) -> str:
    if match := LABEL_IN_NAME.search(path.name):
        return match["label"]
    message = (
        f"{path.name} has no label: images that lie in no class folder are named "
        "<name>_<class name>.png"
    )
    raise UserError(message)


def _is_litter(path: Path) -> bool:
    return any(LITTER.match(part) for part in path.parts)
