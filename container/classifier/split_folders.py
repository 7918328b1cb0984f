"""Folders that are splits, as their names and the folders next to them show."""

import re
from collections.abc import Collection, Mapping, Sequence

from container.classifier.class_folders import LayoutError, Parts, by_folder
from container.classifier.split_names import SplitName, is_generic, split_name

# A folder of such a name next to one of a split is no class.
_RARELY_CLASSES = re.compile(
    r"extras?|others?|misc|rest|additional|more|new|unused|annotations|masks", re.IGNORECASE
)

_NOT = re.compile(r"(in|un|non|not)[ _-]?")

# Options of `prepare`, and the hyperparameter of a job.
ONLY_SPLITS = (
    "--within FOLDER, or --splits none if they are classes",
    "splits=none if they are classes",
)


def is_rarely_a_class(name: str) -> bool:
    """Return whether a folder's name, such as `misc`, is rarely that of a class."""
    return _RARELY_CLASSES.fullmatch(name) is not None


def wrapper_depth(paths: Sequence[Parts], *, has_splits: bool, is_whole: bool) -> int:
    """Return the number of folders that enclose all images, as archives often have them.

    Args:
        paths: All images of a source.
        has_splits: Whether folders can be splits.
        is_whole: Whether a single folder is no class, because a classifier has several.
    """
    depth = 0
    while len(folders := by_folder([path[depth:] for path in paths])) == 1:
        ((folder, below),) = folders.items()
        if len(below) < len(paths) or not by_folder(below):
            break
        role = split_name(folder) if has_splits else None
        if role and not _holds_splits(below):
            break
        if not (is_whole or is_generic(folder) or role):
            break
        depth += 1
    return depth


def assign_splits(paths: Sequence[Parts]) -> list[tuple[str | None, Parts]]:
    """Return the split of each image, None without splits, and its path in the split.

    Of several folders with one role, such as test and test_another, the one with the shortest
    name is the split; the others become separate splits, so that they are not mixed.

    Raises:
        LayoutError: it is not certain whether folders are splits or classes.
    """
    folders = by_folder(paths)
    roles = {name: role for name in sorted(folders) if (role := split_name(name))}
    others = [name for name in sorted(folders) if name not in roles]
    loose = [path[0] for path in paths if len(path) == 1]
    if not roles:
        return _splits_below(paths, folders)
    if others or loose:
        if _are_classes(folders, roles, others, loose):
            return [(None, path) for path in paths]
        is_one = len(roles) == 1
        look, them = ("looks like a split", "it") if is_one else ("look like splits", "them")
        raise LayoutError(
            f"{', '.join(roles)} {look}, but {(others + loose)[0]} is next to {them}: use only "
            "the folder that contains the splits",
            *ONLY_SPLITS,
        )
    is_flat = {name: all(len(path) == 1 for path in below) for name, below in folders.items()}
    exact = any(role.is_exact for role in roles.values())
    different = {role.role for role in roles.values()}
    if len(folders) > 1 and not exact and all(is_flat.values()):
        if len(different) == 1:
            # Such as freight_train and steam_train.
            return [(None, path) for path in paths]
        if _name_classes(roles.values()):
            return [(roles[path[0]].role, (roles[path[0]].rest, *path[1:])) for path in paths]
        if len({role.rest for role in roles.values()}) > 1:
            raise LayoutError(
                f"the folders {', '.join(roles)} can be splits or classes: put the class folders "
                "into folders of splits",
                *ONLY_SPLITS,
            )
    named = _named(roles)
    unwrapped = {name: _inner_depth(below, roles[name].role) for name, below in folders.items()}
    found: list[tuple[str | None, Parts]] = [
        (named[path[0]], path[1 + unwrapped[path[0]] :]) for path in paths
    ]
    _check_single_level(found)
    return found


def _are_classes(
    folders: Mapping[str, Sequence[Parts]],
    roles: Mapping[str, SplitName],
    others: Sequence[str],
    loose: Sequence[str],
) -> bool:
    """Return whether a folder with a split's name is a class, as the folders next to it show."""
    if loose or any(is_generic(name) or _RARELY_CLASSES.fullmatch(name) for name in others):
        return False
    exact = [name for name in roles if roles[name].is_exact and roles[name].role != "train"]
    if exact and not any(_is_opposite(other, name) for name in exact for other in others):
        # Next to classes, a folder test or unlabeled is rarely a class, as train can be.
        return False
    if all(len(path) == 1 for name in roles for path in folders[name]) and all(
        any(len(path) == 1 for path in folders[name]) for name in others
    ):
        return len(roles) == 1 or not any(role.is_exact for role in roles.values())
    flat = {all(len(path) == 1 for path in below) for below in folders.values()}
    found = {role.role for role in roles.values()}
    return flat == {False} and len(roles) == 1 and "train" not in found


def _is_opposite(other: str, name: str) -> bool:
    """Return whether a name is the opposite of another one, as invalid is of valid."""
    start = other.lower().removesuffix(name.lower())
    return len(start) < len(other) and bool(_NOT.fullmatch(start))


def _splits_below(
    paths: Sequence[Parts], folders: Mapping[str, Sequence[Parts]]
) -> list[tuple[str | None, Parts]]:
    """Return the splits of class folders that contain folders of splits, if they do."""
    inner = {name: _roles_below(below) for name, below in folders.items()}
    # Not all need all splits, as in archive/train/ant and archive2/test/ant.
    are_all = all(inner.values()) and len(set().union(*inner.values())) > 1
    holders = [name for name, roles in inner.items() if are_all or len(roles) > 1]
    if not holders:
        return [(None, path) for path in paths]
    if len(holders) == len(folders) and all(len(path) == 3 for path in paths):  # noqa: PLR2004
        found = []
        for path in paths:
            role = split_name(path[1])
            found.append((role.role if role else None, (path[0], *path[2:])))
        return found
    other = next((name for name in sorted(folders) if name != holders[0]), "an image")
    raise LayoutError(
        f"the folder {holders[0]} contains splits, and {other} is next to it: use only the folder "
        "that contains the splits",
        *ONLY_SPLITS,
    )


def _holds_splits(paths: Sequence[Parts]) -> bool:
    """Return whether the folders in a folder are splits, at least two of them."""
    return len(_roles_below(paths)) > 1


def _roles_below(paths: Sequence[Parts]) -> set[str]:
    """Return the roles of the folders in a folder; none unless all of them are splits."""
    roles = [split_name(name) for name in by_folder(paths)]
    is_loose = any(len(path) == 1 for path in paths)
    return set() if is_loose or not all(roles) else {role.role for role in roles if role}


def _inner_depth(paths: Sequence[Parts], role: str) -> int:
    """Return the number of folders of a split that enclose all of its images: train/train/..."""
    depth = 0
    while len(folders := {path[depth] for path in paths}) == 1 and all(
        len(path) > depth + 1 for path in paths
    ):
        (folder,) = folders
        inner = split_name(folder)
        if not (is_generic(folder) or (inner and inner.role == role)):
            break
        depth += 1
    return depth


def _name_classes(roles: Collection[SplitName]) -> bool:
    """Return whether folders name a split and a class, such as train_cats and test_cats."""
    trained = {role.rest for role in roles if role.role == "train"}
    return len(trained) > 1 and {role.rest for role in roles} == trained


def _named(roles: Mapping[str, SplitName]) -> dict[str, str]:
    """Return the split of every folder.

    Raises:
        LayoutError: several folders are for training.
    """
    found: dict[str, str] = {}
    training = sorted(name for name, role in roles.items() if role.role == "train")
    if len(training) > 1:
        raise LayoutError(
            f"the folders {', '.join(training)} are all for training: keep one, or put the others "
            "into it",
            *ONLY_SPLITS,
        )
    for folder in sorted(roles, key=lambda name: (len(name), name)):
        role = roles[folder].role
        found[folder] = folder if role in found.values() else role
    return found


def _check_single_level(found: Sequence[tuple[str | None, Parts]]) -> None:
    """Check that no split contains splits."""
    for split in {split for split, _ in found}:
        inner = by_folder([path for name, path in found if name == split])
        roles = {name for name in inner if split_name(name)}
        if inner and roles == set(inner) and len(roles) > 1:
            raise LayoutError(
                f"the split {split} contains folders that look like splits, "
                f"{', '.join(sorted(roles))}: keep one level of splits",
                *ONLY_SPLITS,
            )
