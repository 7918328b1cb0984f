"""The columns of lists of images that name their splits, such as `split`, `fold` and `is_train`."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NoReturn, TypeAlias

from container.classifier.channel_names import SPLITS
from container.classifier.errors import UserError
from container.classifier.split_names import role_of
from image_classifier.preparation.tables import FLAGS, Numbered, cell, column_name

# Usual names of columns whose values are splits. The values of the first one must be.
NAMES = (
    "split", "subset", "set", "partition", "data_set", "dataset", "data_split", "dataset_split",
    "split_name", "phase", "usage", "fold",
)  # fmt: skip

# Columns of 0 and 1, or of true and false: is_train, is_training_image, is_valid, isTest.
_FLAG_NAME = re.compile("is_?(?P<role>.+)")

# The split of each record; None without one.
Roles: TypeAlias = Sequence[str | None]


def is_split_column(name: str) -> bool:
    """Return whether a column has a usual name for splits."""
    return column_name(name) in NAMES or _flag_role(name) in SPLITS


def read_splits(
    path: Path, records: Sequence[Numbered], columns: Sequence[str], chosen: str | None = None
) -> tuple[Roles, list[str]]:
    """Return the splits of N records, and a sentence about each column that is not used.

    Args:
        path: The list's file, for messages.
        records: The records, with their numbers.
        columns: Columns with usual names for splits.
        chosen: The column that `--columns` names; None: the usual ones.

    Raises:
        UserError: a value is not a split, or columns contradict each other.
    """
    columns = [chosen] if chosen else columns
    flags = {
        name: role for name in columns if (role := _flag_role(name)) and _are_flags(records, name)
    }
    found: list[tuple[str, Roles]] = []
    unused = []
    for name in (name for name in columns if name not in flags):
        values = [cell(record, name) for _, record in records]
        roles: Roles = [role_of(value) for value in values]
        if name == chosen or column_name(name) == NAMES[0] or any(role in SPLITS for role in roles):
            _check(path, records, values, roles)
            found.append((name, roles))
        elif any(values):
            text = f"values of {name!r} such as {max(values)!r} are not splits"
            unused.append(f"{path}: the column is not used, because {text}")
    if flags and not found:
        return _roles_of_flags(path, records, flags), unused
    _compare(path, records, found, flags)
    return (found[0][1] if found else [None] * len(records)), unused


def _compare(
    path: Path,
    records: Sequence[Numbered],
    found: Sequence[tuple[str, Roles]],
    flags: Mapping[str, str],
) -> None:
    """Check that columns with splits do not contradict each other or flags."""
    for (name, roles), (other, others) in pairwise(found):
        for (number, _), role, another in zip(records, roles, others, strict=True):
            if role != another:
                _contradict(path, number, f"{name} is {role}", f"{other} is {another}")
    for flag, meaning in flags.items():
        for (number, record), role in zip(records, found[0][1], strict=True):
            value = cell(record, flag)
            if FLAGS[value.lower()] != (role == meaning):
                _contradict(path, number, f"{found[0][0]} is {role}", f"{flag} is {value}")


def _contradict(path: Path, number: int, one: str, other: str) -> NoReturn:
    text = "choose a column with --columns split=NAME"
    raise UserError(f"{path}, row {number}: {one}, and {other}: {text}")


def _check(path: Path, records: Sequence[Numbered], values: Sequence[str], roles: Roles) -> None:
    for (number, _), value, role in zip(records, values, roles, strict=True):
        if value and role not in SPLITS:
            raise UserError(
                f"{path}, row {number}: {value!r} is not a split: use train, validation or test"
            )


def _flag_role(name: str) -> str | None:
    match = _FLAG_NAME.fullmatch(column_name(name))
    return role_of(match["role"]) if match else None


def _are_flags(records: Sequence[Numbered], name: str) -> bool:
    """Return whether a column has both values: `is_valid` can also mean that a row is correct."""
    values = {FLAGS.get(cell(record, name).lower()) for _, record in records}
    return values == {False, True}


def _roles_of_flags(path: Path, records: Sequence[Numbered], flags: Mapping[str, str]) -> Roles:
    """Return the splits of columns such as is_train and is_test.

    Without any of them an image is of training; or else, of test or validation.
    """
    rest = next(
        (role for role in ("train", "test", "validation") if role not in flags.values()), ""
    )
    roles = []
    for number, record in records:
        found = {role for name, role in flags.items() if FLAGS[cell(record, name).lower()]}
        if len(found) > 1 or not (found or rest):
            raise UserError(
                f"{path}, row {number}: exactly one of {', '.join(flags)} must be 1, got "
                f"{len(found)}"
            )
        roles.append(found.pop() if found else rest)
    return roles
