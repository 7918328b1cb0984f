"""Strict pydantic models for the settings file; all mistakes are collected."""

import copy
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from image_classifier.settings.suggestion import suggestion

# The keys from the top of the file to a value, without indices of lists.
KeyPath = tuple[str, ...]


class Mistake(NamedTuple):
    """What is wrong with a key."""

    path: KeyPath
    message: str


class Conflict(NamedTuple):
    """What is wrong with a key because of others.

    Keys are dotted, below the section; an empty one is the section itself.
    """

    key: str
    message: str

    needs: str | None = None
    """A key that must be valid, like all keys below it: otherwise the conflict is not reported."""


class Section(BaseModel):
    """A table of the settings file."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )

    def conflicts(
        self, wrong: frozenset[KeyPath] = frozenset(), path: KeyPath = ()
    ) -> Iterator[Mistake]:
        """Yield values that conflict with those of other keys, here and in the sections below.

        Args:
            wrong: keys that have their default here, because their values are invalid. What
                depends on them is unknown.
            path: the keys from the top of the file to this section.
        """
        for key, message, needs in self._conflicts():
            found, needed = ((*path, *filter(None, each.split("."))) for each in (key, needs or ""))
            is_unknown = needs is not None and any(each[: len(needed)] == needed for each in wrong)
            if found not in wrong and not is_unknown:
                yield Mistake(found, message)
        for name, value in self:
            if isinstance(value, Section):
                yield from value.conflicts(wrong, (*path, name))
            elif isinstance(value, Mapping):
                for key, item in value.items():
                    if isinstance(item, Section):
                        yield from item.conflicts(wrong, (*path, name, key))

    def _conflicts(self) -> Iterator[Conflict]:
        yield from ()


SectionType = TypeVar("SectionType", bound=Section)


def validate(kind: type[SectionType], content: dict[str, Any]) -> tuple[SectionType, list[Mistake]]:
    """Validate a table; return the section, with defaults for wrong keys, and every mistake."""
    try:
        section, errors = kind.model_validate(content), []
    except ValidationError as error:
        errors = error.errors()
        section = kind.model_validate(_without(content, [_path(error) for error in errors]))
    mistakes = [Mistake(_path(error), _message(error, section)) for error in errors]
    # A key of the wrong type has its default here: only its type is worth a message.
    wrong = frozenset(mistake.path for mistake in mistakes)
    return section, [*mistakes, *section.conflicts(wrong)]


def to_strings(values: Mapping[str, object]) -> dict[str, str]:
    """Return values as the API requires them: text as it is, anything else as JSON."""
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in values.items()}


def _path(error: ErrorDetails) -> KeyPath:
    """Return the key of an error: that of the list for an item, of the pair for a table's key."""
    path: list[str] = []
    for part in error["loc"]:
        if isinstance(part, int) or part == "[key]":
            break
        path.append(part)
    return tuple(path)


def _without(content: dict[str, Any], paths: list[KeyPath]) -> dict[str, Any]:
    kept = copy.deepcopy(content)
    for *tables, key in paths:
        table = kept
        for name in tables:
            table = table[name]
        table.pop(key, None)
    return kept


def _message(error: ErrorDetails, section: Section) -> str:
    if error["type"] == "extra_forbidden":
        *tables, key = _path(error)
        for name in tables:
            section = section[name] if isinstance(section, Mapping) else getattr(section, name)
        return f"is unknown here{suggestion(key, type(section).model_fields)}"
    if error["type"] in {"model_type", "dict_type"}:
        return f"must be a table, got {error['input']!r}"
    if error["type"] == "tuple_type":
        return f"must be a list, got {error['input']!r}"
    text = error["msg"].removeprefix("Value error, ").replace(" after validation", "")
    text, *rest = re.sub(r"^\w+ should", "must", text).split(";", 1)
    return ";".join([f"{text}, got {error['input']!r}", *rest])
