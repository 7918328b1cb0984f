"""Class, split and group of an image, by folders or by patterns in its path."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from container.classifier.channel_names import SPLITS
from container.classifier.class_folders import LayoutError
from container.classifier.errors import UserError
from container.classifier.image_files import is_ignored
from container.classifier.layout import LABEL_IN_NAME, place
from image_classifier.preparation.findings import Finding

LABEL_PATTERNS: Mapping[str, str] = {
    "last-underscore": LABEL_IN_NAME.pattern,
    "fingers": r"_(?P<label>[0-5][LR])\.[^.]+$",
    "name-number": r"(?P<label>[^/]+?)[ _.-]*\(?\d+\)?\.[^.]+$",
    "folder": r"(?P<label>[^/]+)/[^/]+$",
    "first-folder": r"^(?P<label>[^/]+)/",
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
    names: Sequence[str], pattern: re.Pattern[str] | None = None, *, has_splits: bool = True
) -> tuple[list[Labeled], list[Finding]]:
    """Label images by their folders, or by a pattern that is searched in their paths.

    Returns:
        The labeled images, and findings about those without a label.

    Raises:
        UserError: the layout is unknown or ambiguous, or no image has a label.
    """
    try:
        placed = place(names, pattern, has_splits=has_splits)
    except LayoutError as error:
        raise UserError(f"{error} ({error.options})") from error
    labeled, findings = [], []
    for item in placed:
        if item.class_name is None:
            findings.append(Finding("unlabeled", item.name, item.reason))
        else:
            labeled.append(Labeled(item.name, item.class_name, item.inner, item.split))
    if not labeled:
        raise UserError(
            f"no image has a label, for example {names[0]}: expected <class name>/<file>.jpg or "
            "<name>_<class name>.png; else use --label (--label name-number for cat.12.jpg) or "
            "--manifest"
        )
    return labeled, findings


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
