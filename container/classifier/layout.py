"""Split and class of images by their folders and names, in preparation and in training.

Class folders `<class name>/.../<file>.jpg`, or the label in the file name,
`<name>_<class name>.png`; each in folders of splits or not, and in enclosing folders or not.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from container.classifier.class_folders import (
    LayoutError,
    Parts,
    check_class_folders,
    check_labels,
)
from container.classifier.split_folders import assign_splits, wrapper_depth
from container.classifier.split_names import UNLABELED, normalized

LABEL_IN_NAME = re.compile(r"_(?P<label>[^_./]+)(\.[^./]+)?$")


@dataclass(frozen=True, slots=True)
class Placed:
    """Where an image belongs."""

    name: str
    """Its path in the source, as given."""

    split: str | None
    """None: the source has no splits."""

    class_name: str | None
    """In Unicode's composed form; None if it has no label."""

    inner: str
    """Its path in its class folder."""

    reason: str = ""
    """Why it has no label."""


def place(
    names: Sequence[str],
    pattern: re.Pattern[str] | None = None,
    *,
    has_splits: bool = True,
    is_whole: bool = True,
) -> list[Placed]:
    """Find split and class of images.

    Args:
        names: Their paths with slashes, relative to the source.
        pattern: Searched in the paths for `label`, instead of class folders and usual names.
        has_splits: Whether folders can be splits.
        is_whole: Whether these are images of all classes, so that a single folder is no class.

    Raises:
        LayoutError: the layout is unknown or not certain.
    """
    paths: list[Parts] = [tuple(normalized(name).split("/")) for name in names]
    depth = wrapper_depth(paths, has_splits=has_splits, is_whole=is_whole)
    assigned: list[tuple[str | None, Parts]] = [(None, path[depth:]) for path in paths]
    if has_splits:
        assigned = assign_splits([path for _, path in assigned])
    if pattern is not None:
        return [
            _by_pattern(name, split, path, pattern)
            for name, (split, path) in zip(names, assigned, strict=True)
        ]
    if is_whole and _is_folder_of_labeled_names(assigned):
        assigned = [(split, path[1:]) for split, path in assigned]
    flat = _flat_splits(names, assigned)
    placed = [
        _by_layout(name, split, path, flat)
        for name, (split, path) in zip(names, assigned, strict=True)
    ]
    labels = {item.name: item.class_name for item in placed if item.class_name is not None}
    # A split held out of many classes has few images of each.
    if labels and is_whole:
        check_labels(labels, in_names=all(flat.values()))
    return placed


def _by_pattern(name: str, split: str | None, path: Parts, pattern: re.Pattern[str]) -> Placed:
    inner = "/".join(path)
    match = pattern.search(normalized(name))
    if not match or not match["label"]:
        return Placed(name, split, None, inner, "the pattern finds no label in its path")
    # A pattern can match the class folder.
    return Placed(name, split, match["label"], inner.removeprefix(f"{match['label']}/"))


def _by_layout(
    name: str, split: str | None, path: Parts, flat: Mapping[str | None, bool]
) -> Placed:
    inner = "/".join(path)
    if split == UNLABELED:
        return Placed(name, split, None, inner, "its folder is for images without labels")
    if not flat[split]:
        return Placed(name, split, path[0], "/".join(path[1:]))
    if not all(flat.values()):
        return Placed(name, split, None, inner, f"{split} has no class folders, as train has")
    match = LABEL_IN_NAME.search(path[-1])
    reason = "" if match else "name images outside of class folders <name>_<class name>.png"
    return Placed(name, split, match["label"] if match else None, inner, reason)


def _flat_splits(
    names: Sequence[str], assigned: Sequence[tuple[str | None, Parts]]
) -> dict[str | None, bool]:
    """Return for every labeled split whether it has no class folders; check these folders.

    Raises:
        LayoutError: there are class folders and loose images in one split, or in training.
    """
    by_split: dict[str | None, list[int]] = defaultdict(list)
    for index, (split, _) in enumerate(assigned):
        if split != UNLABELED:
            by_split[split].append(index)
    flat: dict[str | None, bool] = {}
    loose_of: dict[str | None, str] = {}
    for split, indices in by_split.items():
        loose = [index for index in indices if len(assigned[index][1]) == 1]
        if loose and len(loose) < len(indices):
            raise _mixed(names[loose[0]])
        flat[split] = bool(loose)
        if loose:
            loose_of[split] = names[loose[0]]
        else:
            check_class_folders([assigned[index][1] for index in indices])
    if flat.get("train") and not all(flat.values()):
        raise _mixed(loose_of["train"])
    return flat


def _mixed(name: str) -> LayoutError:
    return LayoutError(
        f"there are both class folders and loose images such as {name}: put every image into its "
        "class folder",
        "--label PATTERN",
    )


def _is_folder_of_labeled_names(assigned: Sequence[tuple[str | None, Parts]]) -> bool:
    """Return whether all images are in one folder, which is no class, with labels in names."""
    folders = {path[0] for _, path in assigned if len(path) > 1}
    return len(folders) == 1 and all(
        len(path) == 2 and split is None and LABEL_IN_NAME.search(path[-1])  # noqa: PLR2004
        for split, path in assigned
    )
