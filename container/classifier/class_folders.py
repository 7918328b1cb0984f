"""Checks that folders are classes, and that labels are classes and not counters."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from container.classifier.errors import UserError

# The folders of a path, and its file name.
Parts: TypeAlias = tuple[str, ...]

# A folder of these names next to others holds images of all classes.
_ALL_IMAGES = frozenset({"images", "imgs", "img", "jpegimages"})

# Fewer folders with one letter can be classes, such as those of letters.
_MIN_LETTERS = 3

# With fewer images in class folders, a class can have a single image.
_MIN_IMAGES = 20

_COUNTER = re.compile(r"\(?\d+[a-z]?\)?")


class LayoutError(UserError):
    """A layout that is unknown or not certain."""

    def __init__(self, text: str, options: str = "", job_option: str = "") -> None:
        """Create an error with the options of `prepare`, and of a job, that help."""
        super().__init__(text)
        self.options, self.job_option = options, job_option


def by_folder(paths: Sequence[Parts]) -> dict[str, list[Parts]]:
    """Return the paths in each first folder, without it; loose files are left out."""
    folders: dict[str, list[Parts]] = defaultdict(list)
    for path in paths:
        if len(path) > 1:
            folders[path[0]].append(path[1:])
    return dict(folders)


def check_class_folders(paths: Sequence[Parts]) -> None:
    """Check that the first folders of a split's images are its classes.

    Raises:
        LayoutError: they are more likely something else.
    """
    folders = by_folder(paths)
    if len(folders) == 1:
        return
    names = sorted(folders)
    below = {name: set(by_folder(rest)) for name, rest in folders.items()}
    if images := [name for name in names if name.lower() in _ALL_IMAGES]:
        other = next(name for name in names if name != images[0])
        raise LayoutError(
            f"the folder {images[0]} is no class, and {other} is next to it: use only the folder "
            "that contains the class folders",
            f"--within {images[0]}",
        )
    for name in names:
        copied = sorted(below[name] & (folders.keys() - {name}))
        if len(copied) > 1:
            raise LayoutError(
                f"the folder {name} contains folders of the same names as those next to it, such "
                f"as {copied[0]}: remove one of the copies",
                f"--within {name}",
            )
    if not all(len(rest) > 1 for rests in folders.values() for rest in rests):
        return
    pairs, different = sum(map(len, below.values())), set().union(*below.values())
    if 1 < len(different) <= pairs / 2:
        raise LayoutError(
            f"the folders {listed(names)} contain the same folders, {listed(sorted(different))}: "
            "either can be the classes; keep only one level of folders",
            "--within FOLDER, --label folder (the last folder) or --label first-folder",
        )
    letters = sum(len(name) == 1 and name.isalpha() for name in names)
    if letters == len(names) >= _MIN_LETTERS and _is_index(below):
        raise LayoutError(
            f"the folders {listed(names)} are an alphabetical index of the class folders: "
            "remove this level",
            "--label folder",
        )


def check_labels(labels: Mapping[str, str], *, in_names: bool) -> None:
    """Check that labels, by the paths of their images, are not counters or names of images.

    Args:
        labels: By path.
        in_names: Whether they were read from file names.

    Raises:
        LayoutError: they are.
    """
    counts = Counter(labels.values())
    path = next(iter(labels))
    found = f"labels were read from the file names, such as {labels[path]!r} from {path}"
    few = 2 if in_names else _MIN_IMAGES
    if len(labels) > few and len(counts) > max(2, len(labels) / 2):
        number = f"{len(labels)} images have {len(counts)} different labels"
        what = "every image has a different label" if len(counts) == len(labels) else number
        where = found if in_names else f"labels such as {labels[path]!r} of {path} are no classes"
        raise LayoutError(
            f"{where}, and {what}: put the images into class folders, or name them "
            "<name>_<class name>.png",
            "another label, such as --label name-number for great_dane_12.jpg",
        )
    if in_names and all(map(_COUNTER.fullmatch, counts)):
        prefixes = {name[: name.rfind(label)] for name, label in labels.items()}
        if len(labels) >= 2 * len(prefixes):
            raise LayoutError(
                f"{found}, and they are counters: put the images into class folders, or name them "
                "<name>_<class name>.png",
                "--label name-number, which takes the text before the number, or "
                "--label last-underscore if the numbers are the classes",
            )


def _is_index(below: Mapping[str, set[str]]) -> bool:
    """Return whether most folders start with the letter of the folder above them."""
    starts = [
        inner.lower().startswith(name.lower()) for name, rest in below.items() for inner in rest
    ]
    return sum(starts) > len(starts) / 2


def listed(names: Sequence[str], most: int = 3) -> str:
    """Return the first names, and dots if there are more."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
