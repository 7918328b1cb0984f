"""Class, split and group of an image, by folders or by patterns in its path."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from container.classifier.channel_names import SPLITS
from container.classifier.errors import UserError
from container.classifier.labeled_images import (
    LABEL_IN_NAME,
    LabeledFile,
    check_labels_in_names,
    is_ignored,
)
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

# File systems allow 255 bytes; a margin for what programs append.
MAX_CLASS_NAME_BYTES = 200


@dataclass(frozen=True, slots=True)
class Labeled:
    """An image's path with its class, split and group."""

    name: str
    """Its path in the source, with slashes."""

    class_name: str

    inner: str
    """Its path without the enclosing, split and class folders: its path in its class folder."""

    split: str | None = None
    """None: the source has no splits."""

    group: str | None = None
    """Images of one group stay in one split."""


def compile_pattern(pattern: str, presets: Mapping[str, str], group: str) -> re.Pattern[str]:
    """Compile a preset by its name, or else a regular expression.

    Raises:
        UserError: it is not a regular expression, or lacks the named group.
    """
    names = ", ".join(presets)
    try:
        found = re.compile(presets.get(pattern, pattern))
    except re.error as error:
        raise UserError(
            f"{pattern!r} is not a regular expression ({error}) or one of {names}"
        ) from error
    if group not in found.groupindex:
        raise UserError(f"{pattern!r} has no group (?P<{group}>...): add it, or use one of {names}")
    return found


def label_by_layout(
    names: Sequence[str], pattern: re.Pattern[str] | None = None
) -> tuple[list[Labeled], list[Finding]]:
    """Label images by their folders, or by a pattern that is searched in their paths.

    Returns:
        The labeled images, and findings about those without a label.

    Raises:
        UserError: the layout is unknown or ambiguous, or no image has a label.
    """
    wrapper = _wrapper(names)
    unwrapped = [name.removeprefix(wrapper) for name in names]
    splits = split_folders(unwrapped)
    labeled, findings = [], []
    for name, path in zip(names, unwrapped, strict=True):
        folder, _, rest = path.partition("/")
        split = splits.get(folder)
        label, inner = _label(name, rest if split else path, pattern)
        if label is None:
            findings.append(Finding("unlabeled", name, "the pattern finds no label in its path"))
        else:
            labeled.append(Labeled(name, label, inner, split))
    if pattern is None:
        _check_one_layout(unwrapped, has_splits=bool(splits))
    if not labeled:
        raise UserError(
            f"no image has a label, for example {names[0]}: expected <class name>/<file>.jpg or "
            "<name>_<class name>.png; else use --label or --manifest"
        )
    if pattern is None:
        check_labels_in_names([LabeledFile(Path(item.name), item.class_name) for item in labeled])
    return labeled, findings


def split_folders(names: Sequence[str]) -> dict[str, str]:
    """Return the split of each folder that is a split; empty if the source has no splits.

    Of several folders with one role, such as test and test_another, the one with the shortest
    name is the split; the others become separate splits, so that they are not mixed.

    Raises:
        UserError: there are other folders or files next to the splits.
    """
    folders = sorted({name.partition("/")[0] for name in names if "/" in name})
    roles = {folder: role for folder in folders if (role := role_of(folder))}
    others = [folder for folder in folders if folder not in roles]
    if not roles or ("train" not in roles.values() and others):
        return {}
    if others := others + [name for name in names if "/" not in name]:
        raise UserError(
            f"{', '.join(roles)} look like splits, but {others[0]} is next to them: name the "
            "folder that contains only the splits (with --within in an archive)"
        )
    splits: dict[str, str] = {}
    for folder in sorted(roles, key=lambda folder: (len(folder), folder)):
        splits[folder] = folder if roles[folder] in splits.values() else roles[folder]
    return splits


def role_of(name: str) -> str | None:
    """Return the split that the name of a folder or a manifest stands for."""
    match = SPLIT_FOLDER.match(name)
    return ROLES[match["role"][:2].lower()] if match else None


def add_groups(images: Sequence[Labeled], pattern: re.Pattern[str]) -> list[Labeled]:
    """Return images with the group that a pattern finds in their paths, if it finds one.

    Raises:
        UserError: the pattern finds no group at all.
    """
    matches = [pattern.search(image.name) for image in images]
    if not any(matches):
        raise UserError(f"the group pattern {pattern.pattern!r} matches no path: {images[0].name}")
    return [
        replace(image, group=match["group"]) if match else image
        for image, match in zip(images, matches, strict=True)
    ]


def split_names(images: Iterable[Labeled]) -> list[str]:
    """Return the splits of images, the usual ones first; `all` stands for no split."""
    found = {image.split or "all" for image in images}
    return [*(name for name in SPLITS if name in found), *sorted(found - set(SPLITS))]


def class_names(images: Iterable[Labeled]) -> list[str]:
    """Return the classes of images, sorted."""
    return sorted({image.class_name for image in images})


def check_class_name(name: str) -> None:
    """Check that a class name can be a folder's name.

    Raises:
        UserError: it cannot.
    """
    is_long = len(name.encode()) > MAX_CLASS_NAME_BYTES
    if not name or set(name) & set("/\\\0") or is_ignored(name) or is_long:
        raise UserError(f"the class name {name[:50]!r} cannot be a folder's name: rename it")


def _label(name: str, inner: str, pattern: re.Pattern[str] | None) -> tuple[str | None, str]:
    """Return the label, and the path in the class folder."""
    folder, slash, rest = inner.partition("/")
    if pattern is None and slash:
        return folder, rest
    match = (pattern or LABEL_IN_NAME).search(name)
    label = match["label"] if match else None
    # A pattern can match the class folder.
    return label, inner.removeprefix(f"{label}/")


def _wrapper(names: Sequence[str]) -> str:
    """Return the folders that enclose everything, as archives often have, with a slash."""
    paths = [name.split("/") for name in names]
    depth = 0
    while (
        len({path[depth] for path in paths}) == 1
        and not role_of(paths[0][depth])
        # Below them is at least a class folder with a file.
        and all(len(path) > depth + 2 for path in paths)
    ):
        depth += 1
    return "".join(f"{folder}/" for folder in paths[0][:depth])


def _check_one_layout(names: Sequence[str], *, has_splits: bool) -> None:
    """Check that no split has both class folders and loose images."""
    firsts: dict[str, dict[bool, str]] = defaultdict(dict)
    for name in names:
        split, _, inner = name.partition("/") if has_splits else ("", "", name)
        firsts[split].setdefault("/" in inner, name)
    for first in firsts.values():
        if len(first) > 1:
            raise UserError(
                f"there are both class folders and loose images such as {first[False]}: put every "
                "image into its class folder, or use --label"
            )
