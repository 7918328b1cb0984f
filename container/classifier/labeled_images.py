"""The labeled images of a channel, with the checks that preparation and training share.

Images are not decoded here.
"""

import logging
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from container.classifier.channel_names import SPLITS, TEST, VALIDATION
from container.classifier.class_folders import LayoutError
from container.classifier.errors import UserError
from container.classifier.image_files import find_images, is_ignored
from container.classifier.layout import place
from container.classifier.lost_files import check_unused
from container.classifier.split_folders import is_rarely_a_class

logger = logging.getLogger(__name__)

# Ratio of the largest class to the smallest one from which on training balances them. Below it,
# balancing costs more than it gains.
IMBALANCE = 3.0

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


@dataclass(frozen=True, slots=True)
class Splits:
    """The images of a channel by the splits that it contains."""

    files: Mapping[str, list[LabeledFile]]
    """Each split sorted by path; under `train` if the channel contains no splits."""

    lost: int
    """Number of the channel's files that can be images and that no program here reads."""

    def single(self) -> list[LabeledFile]:
        """Return the files of a channel that contains no splits.

        Raises:
            UserError: it contains several.
        """
        if len(self.files) > 1:
            raise UserError(
                f"a channel contains the splits {', '.join(self.files)}: make each of them a "
                "channel"
            )
        (files,) = self.files.values()
        return files


def labeled_files(directory: Path) -> list[LabeledFile]:
    """Find a channel's images, sorted by path; see `labeled_splits`.

    Raises:
        UserError: as `labeled_splits`, or the channel contains several splits.
    """
    return labeled_splits(directory).single()


def labeled_splits(directory: Path, *, is_whole: bool = True, has_splits: bool = True) -> Splits:
    """Find the images of a channel by the splits that it contains; log the files not used.

    Args:
        directory: The channel's folder.
        is_whole: Whether it has images of all classes, as that of training does.
        has_splits: Whether folders can be splits.

    Raises:
        UserError: the channel has no image, an image has no label, the layout is not certain, a
            folder is a symbolic link, a folder has lost all of its images, or more than 5 % of the
            files cannot be read.
    """
    names, unused = find_images(directory)
    if links := [item for item in unused if item.kind == "link"]:
        raise UserError(
            f"{directory / links[0].name} is a link to a folder, and links are not followed: put "
            "the folder there"
        )
    lost = check_unused(directory, names, unused)
    if not names:
        found = f"it contains {unused[0].name}, {unused[0].reason}" if unused else ""
        raise UserError(
            f"no image under {directory}: expected <class name>/<file>.jpg or "
            "<name>_<class name>.png; "
            + (found or "check the channel's name, its S3 prefix and the role")
        )
    try:
        placed = place(names, is_whole=is_whole, has_splits=has_splits)
    except LayoutError as error:
        hint = f" ({error.job_option})" if error.job_option else ""
        raise UserError(f"{directory}: {error}{hint}") from error
    splits: dict[str, list[LabeledFile]] = {}
    for item in placed:
        if item.class_name is None:
            raise UserError(f"{item.name} has no label: {item.reason}")
        files = splits.setdefault(item.split or "train", [])
        files.append(LabeledFile(directory / item.name, item.class_name))
    _warn_about_folders(directory, names, {item.class_name or "" for item in placed})
    return Splits(splits, lost)


def read_channels(
    training: Path, others: Mapping[str, Path | None], *, has_splits: bool
) -> tuple[list[LabeledFile], dict[str, list[LabeledFile]], int]:
    """Return the files for training, those of validation and test, and the number of those lost.

    A single channel can contain the folders of all splits.

    Args:
        training: The folder of the training channel.
        others: The folders of `validation` and `test`; None without one.
        has_splits: Whether folders can be splits.

    Raises:
        UserError: it is not certain which files are for training.
    """
    found = {
        name: labeled_splits(path, is_whole=False, has_splits=has_splits)
        for name, path in others.items()
        if path is not None
    }
    whole = labeled_splits(training, has_splits=has_splits)
    lost = sum(splits.lost for splits in (whole, *found.values()))
    held_out = {name: splits.single() for name, splits in found.items()}
    if len(whole.files) == 1:
        return whole.single(), held_out, lost
    counts = ", ".join(f"{name} ({len(files)} images)" for name, files in whole.files.items())
    if held_out or "train" not in whole.files or whole.files.keys() - set(SPLITS):
        raise UserError(
            f"the training channel contains the splits {counts}: make the folder of each split a "
            "channel, `training`, `validation` and `test`"
        )
    logger.info("the training channel contains splits, which are used as channels: %s", counts)
    held_out = dict(whole.files)
    return held_out.pop("train"), held_out, lost


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
            swapped = left.sub(right, name)
            mirrored = known.get(swapped.lower())
            if mirrored is not None and swapped != name:
                pairs.append((name, mirrored))
    return pairs


def check_classes(files: Sequence[LabeledFile], class_names: Sequence[str], channel: str) -> None:
    """Check that a channel's images belong to the classes of the training channel.

    Raises:
        UserError: the channel has other classes.
    """
    if unknown := sorted({file.class_name for file in files} - set(class_names)):
        spelled = {_folded(name): name for name in class_names}
        similar = [(name, spelled[_folded(name)]) for name in unknown if _folded(name) in spelled]
        hint = f"; spell {similar[0][0]!r} and {similar[0][1]!r} equally" if similar else ""
        raise UserError(
            f"the {channel} channel has classes that training lacks: {', '.join(unknown[:10])}; "
            f"training has {', '.join(class_names[:10])}{hint}"
        )


def _folded(name: str) -> str:
    """Return a name without the differences of spellings: case, spaces and leading zeros."""
    return re.sub(r"[\s_-]+", "", name).casefold().lstrip("0")


def check_splits(splits: Mapping[str, Sequence[LabeledFile]]) -> tuple[str, ...]:
    """Check that splits can be trained on and evaluated; return the names of the classes.

    Args:
        splits: The files of `train`, `validation` and `test`, and of others, which are not checked.

    Raises:
        UserError: there are no files for training, or of fewer than two classes, or another split
            has classes that training lacks, or none is left to split off for validation.
    """
    if not splits.get("train"):
        raise UserError(
            f"there are no images for training, only those of {', '.join(splits)}: add them"
        )
    class_names = class_names_of(splits["train"])
    for name in (VALIDATION, TEST):
        check_classes(splits.get(name, ()), class_names, name)
    if not splits.get(VALIDATION) and len(splits["train"]) == len(class_names):
        raise UserError(
            "every class has a single image: add images, or a validation channel, which is "
            "otherwise split off"
        )
    return class_names


def _warn_about_folders(directory: Path, names: Sequence[str], classes: Collection[str]) -> None:
    used = {name.partition("/")[0] for name in names}
    folders = [path.name for path in sorted(directory.iterdir()) if path.is_dir()]
    if empty := [name for name in folders if name not in used and not is_ignored(name)]:
        logger.warning("folders without images are not classes: %s", ", ".join(empty[:10]))
    if unusual := sorted(filter(is_rarely_a_class, classes)):
        logger.warning(
            "classes with unusual names: %s; move folders of leftovers out of the channel",
            ", ".join(unusual[:10]),
        )
