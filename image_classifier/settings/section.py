"""Strict pydantic models for the settings file; all mistakes are collected."""

import copy
import difflib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

# The keys from the top of the file to a value, without indices of lists.
KeyPath = tuple[str, ...]

# Lax in this one respect: TOML has lists, and frozen models have tuples.
Strings = Annotated[tuple[str, ...], Field(strict=False)]


def _check_scalar(value: object) -> object:
    if not isinstance(value, (str, int, float, bool)):
        raise ValueError("must be one value")  # noqa: TRY004 - pydantic collects ValueErrors
    return value


Scalar = Annotated[object, AfterValidator(_check_scalar)]


class Mistake(NamedTuple):
    """What is wrong with a key."""

    path: KeyPath
    message: str


class Section(BaseModel):
    """A table of the settings file."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )

    def contradictions(self, path: KeyPath = ()) -> Iterator[Mistake]:
        """Yield values that contradict those of other keys, here and in the sections below."""
        for key, message in self._contradictions():
            yield Mistake((*path, *key.split(".")) if key else path, message)
        for name, value in self:
            if isinstance(value, Section):
                yield from value.contradictions((*path, name))
            elif isinstance(value, Mapping):
                for key, item in value.items():
                    if isinstance(item, Section):
                        yield from item.contradictions((*path, name, key))

    def _contradictions(self) -> Iterator[tuple[str, str]]:
        """Yield keys, dotted below this section, and what their values contradict."""
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
    wrong = {mistake.path for mistake in mistakes}
    # A key of the wrong type has its default here: only its type is worth a message.
    mistakes += [found for found in section.contradictions() if found.path not in wrong]
    return section, mistakes


def like(pattern: str, example: str) -> AfterValidator:
    """Return a validator of text that is empty or matches a regular expression."""

    def check(text: str) -> str:
        if text and not re.fullmatch(pattern, text):
            raise ValueError(f"must look like {example}")
        return text

    return AfterValidator(check)


def one_of(names: Collection[str]) -> AfterValidator:
    """Return a validator of text that is one of the names."""

    def check(name: str) -> str:
        if name not in names:
            raise ValueError(f"is unknown{suggestion(name, names)}")
        return name

    return AfterValidator(check)


def suggestion(name: str, names: Collection[str]) -> str:
    """Return the end of a message about an unknown name."""
    near = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(names)}"


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
    text = error["msg"].removeprefix("Value error, ").replace(" after validation", "")
    text, *rest = re.sub(r"^\w+ should", "must", text).split(";", 1)
    return ";".join([f"{text}, got {error['input']!r}", *rest])
