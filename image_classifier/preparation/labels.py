"""Which class, split and group an image belongs to, by folders, by patterns or by manifests."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from container.classifier.channel import LABEL_IN_NAME, is_ignored
from container.classifier.errors import UserError
from container.classifier.vocabulary import SPLITS
from image_classifier.preparation.findings import Finding

SPLIT_FOLDER = re.compile(
    r"^(?P<role>train(?:ing)?|val(?:id|idation)?|test(?:ing)?)(?:[_-].+)?$", re.IGNORECASE
)
ROLES = {"tr": "train", "va": "validation", "te": "test"}

LABEL_PATTERNS: Mapping[str, str] = {
    "last-underscore": LABEL_IN_NAME.pattern,
    "fingers": r"_(?P<label>[0-5][LR])\.[^.]+$",
    "name-number": r"(?P<label>[^/]+?)[ _.-]?\(?\d+\)?\.[^.]+$",
}
GROUP_PATTERNS: Mapping[str, str] = {
    "coordinates": r"(?P<group>-?\d+\.\d+_-?\d+\.\d+)\.[^.]+$",
    "before-underscore": r"(?P<group>[^/_]+)_[^/]*$",
}


@dataclass(frozen=True, slots=True)
class Labeled:
    """An image and what it belongs to."""

    name: str
    """Its path in the source, with slashes."""

    class_name: str

    inner: str
    """Its path without the folders of wrappers, split and class: where it goes in its class."""

    split: str | None = None
    """None: the source has no splits."""

    group: str | None = None
    """What has to stay together with the others of this group."""


def compiled(pattern: str, presets: Mapping[str, str], group: str) -> re.Pattern[str]:
    """Return a preset by its name, or else a pattern.

    Raises:
        UserError: it is no regular expression, or has no part of the name that is wanted.
    """
    try:
        found = re.compile(presets.get(pattern, pattern))
    except re.error as error:
        message = f"{pattern!r} is no regular expression ({error}) and none of {_names(presets)}"
        raise UserError(message) from error
    if group not in found.groupindex:
        message = f"{pattern!r} has no part (?P<{group}>...), nor is it one of {_names(presets)}"
        raise UserError(message)
    return found


def by_layout(
    names: Sequence[str], pattern: re.Pattern[str] | None = None
) -> tuple[list[Labeled], list[Finding]]:
    """Label images by the folders they lie in, or by a pattern that is searched in their paths.

    Returns:
        The labeled images, and findings about those without a label.

    Raises:
        UserError: the layout is none of those known, or no image has a label.
    """
    wrapper = _wrapper(names)
    splits = split_folders([name[len(wrapper) :] for name in names])
    labeled, findings = [], []
    for name in names:
        inner = name[len(wrapper) :]
        folder, _, rest = inner.partition("/")
        split = splits.get(folder)
        if split:
            inner = rest
        label, inner = _label(name, inner, pattern)
        if label is None:
            findings.append(Finding("unlabeled", name, "its path has no label by the pattern"))
        else:
            labeled.append(Labeled(name, label, inner, split))
    if pattern is None:
        _check_one_layout([name[len(wrapper) :] for name in names], splits)
    if not labeled:
        message = (
            f"no image has a label, such as {names[0]}: expected <class name>/<file>.jpg or "
            "<name>_<class name>.png, or say how with --label or --manifest"
        )
        raise UserError(message)
    if pattern is None:
        _check_counts(labeled)
    return labeled, findings


def split_folders(names: Sequence[str]) -> dict[str, str]:
    """Return the splits of the folders that are ready splits; nothing where there are none.

    Of several folders of one role, such as test and test_another, the one with the shortest name
    is the split; the others stay splits of their own, for they are not to be mixed.

    Raises:
        UserError: other folders lie beside them.
    """
    folders = sorted({name.partition("/")[0] for name in names if "/" in name})
    roles = {folder: role for folder in folders if (role := role_of(folder))}
    others = [folder for folder in folders if folder not in roles]
    if "train" not in roles.values() and others:
        return {}
    loose = [name for name in names if "/" not in name]
    if roles and (others or loose):
        message = (
            f"{', '.join(roles)} look like splits, but beside them lies {(others + loose)[0]}: "
            "name the folder that holds the splits alone (of an archive by --within)"
        )
        raise UserError(message)
    splits: dict[str, str] = {}
    for folder in sorted(roles, key=lambda folder: (len(folder), folder)):
        taken = roles[folder] in splits.values()
        splits[folder] = folder if taken else roles[folder]
    return splits


def role_of(folder: str) -> str | None:
    """Return which split a folder's or a manifest's name stands for."""
    match = SPLIT_FOLDER.match(folder)
    return ROLES[match["role"][:2].lower()] if match else None


def grouped(images: Sequence[Labeled], pattern: re.Pattern[str]) -> list[Labeled]:
    """Give every image the group that a pattern finds in its path; without one, none.

    Raises:
        UserError: the pattern is found in no path.
    """
    found = []
    for image in images:
        match = pattern.search(image.name)
        found.append(replace(image, group=match["group"]) if match else image)
    if all(image.group is None for image in found):
        message = f"the group pattern {pattern.pattern!r} is found in no path: {images[0].name}"
        raise UserError(message)
    return found


def split_names(images: Sequence[Labeled]) -> list[str]:
    """Return the splits of images, the usual ones first."""
    found = {image.split or "all" for image in images}
    return [*(name for name in SPLITS if name in found), *sorted(found - set(SPLITS))]


def check_class_name(name: str) -> None:
    """Refuse what cannot be a class's folder.

    Raises:
        UserError: it cannot.
    """
    if not name or set(name) & set("/\\\0") or is_ignored(name) or len(name.encode()) > 200:  # noqa: PLR2004 - of 255
        message = f"the class name {name[:50]!r} cannot be a folder's: rename it"
        raise UserError(message)


def _label(name: str, inner: str, pattern: re.Pattern[str] | None) -> tuple[str | None, str]:
    """Return the label, and the path within the class."""
    if pattern is None and "/" in inner:
        folder, _, rest = inner.partition("/")
        return folder, rest
    match = (pattern or LABEL_IN_NAME).search(name)
    label = match["label"] if match else None
    # A pattern may well read the class's folder.
    return label, inner.removeprefix(f"{label}/")


def _wrapper(names: Sequence[str]) -> str:
    """Return the folders around everything, which archives like to have, and a slash."""
    wrapper = ""
    while True:
        rest = [name[len(wrapper) :] for name in names]
        folders = {name.partition("/")[0] for name in rest}
        folder = folders.pop()
        inner = [PurePosixPath(name).parts for name in rest]
        if folders or role_of(folder) or not all(len(parts) > 2 for parts in inner):  # noqa: PLR2004
            return wrapper
        wrapper += f"{folder}/"


def _check_one_layout(names: Sequence[str], splits: Mapping[str, str]) -> None:
    """Refuse a split, or all without splits, that has class folders and loose images as well."""
    seen: dict[str, tuple[bool, str]] = {}
    for name in names:
        split, _, inner = name.partition("/") if splits else ("", "", name)
        in_folder = "/" in inner
        known, first = seen.setdefault(split, (in_folder, name))
        if known != in_folder:
            loose = first if in_folder else name
            message = (
                f"class folders lie beside loose images such as {loose}: put every image into "
                "its class folder, or say with --label where the labels are"
            )
            raise UserError(message)


def _check_counts(images: Sequence[Labeled]) -> None:
    """Refuse names whose ends are numbers of images, such as IMG_0001.jpg, and no labels."""
    counts = Counter(image.class_name for image in images)
    if len(images) > 2 and len(counts) == len(images):  # noqa: PLR2004
        message = (
            f"labels were read from the files' names, such as {images[0].class_name!r} from "
            f"{images[0].name}, and every image got one of its own: use class folders, or say "
            "where the labels are with --label or --manifest"
        )
        raise UserError(message)


def _names(presets: Mapping[str, str]) -> str:
    return ", ".join(presets)
