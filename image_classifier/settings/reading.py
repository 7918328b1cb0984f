"""Dataclasses from the tables of a TOML file; every mistake is noted, none ends the reading."""

import difflib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Literal, TypeVar

from image_classifier.settings.toml_lines import Path

Table = TypeVar("Table")

_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong, and where."""

    path: Path
    sentence: str


@dataclass(slots=True)
class Reader:
    """Reads tables and notes what is wrong in them."""

    mistakes: list[Mistake] = field(default_factory=list)

    def table(self, kind: type[Table], content: object, path: Path = ()) -> Table:
        """Return a dataclass of the table at `path`; what is wrong in it keeps its default.

        A dataclass may have a method `mistakes`, which yields pairs of a key and a sentence.
        """
        if not isinstance(content, Mapping):
            self._note(path, f"must be a table, got {content!r}")
            return kind()
        hints = typing.get_type_hints(kind)
        names = [each.name for each in fields(kind)]  # type: ignore[arg-type]
        for name in content.keys() - set(names):
            self._note((*path, name), f"is unknown here{_meant(name, names)}")
        values = {}
        for name in names:
            if name in content:
                value = self._value(hints[name], content[name], (*path, name))
                if value is not _WRONG:
                    values[name] = value
        made = kind(**values)
        self._check(made, path)
        return made

    def _check(self, made: object, path: Path) -> None:
        wrong = {mistake.path for mistake in self.mistakes}
        find: typing.Callable[[], Iterator[tuple[str, str]]] | None = getattr(
            made, "mistakes", None
        )
        for key, sentence in find() if find else ():
            place = (*path, *key.split(".")) if key else path
            # What has the wrong type has its default instead: nothing more can be said of it.
            if place not in wrong:
                self._note(place, sentence)

    def _value(self, hint: object, value: object, path: Path) -> object:
        if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
            hint = next(part for part in typing.get_args(hint) if part is not type(None))
        if isinstance(hint, type) and is_dataclass(hint):
            return self.table(hint, value, path)
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin is Literal:
            return self._choice(arguments, value, path)
        if origin is tuple:
            return self._list(arguments[0], value, path)
        if origin is not None:
            return self._mapping(arguments[1], value, path)
        return self._plain(hint, value, path)

    def _choice(self, choices: Sequence[object], value: object, path: Path) -> object:
        if value in choices:
            return value
        known = ", ".join(map(str, choices))
        return self._note(path, f"must be one of {known}; got {value!r}")

    def _list(self, hint: object, value: object, path: Path) -> object:
        if not isinstance(value, list):
            return self._note(path, f"must be a list, got {value!r}")
        items = tuple(self._value(hint, item, path) for item in value)
        return _WRONG if _WRONG in items else items

    def _mapping(self, hint: object, value: object, path: Path) -> object:
        if not isinstance(value, Mapping):
            return self._note(path, f"must be a table, got {value!r}")
        read = {key: self._value(hint, item, (*path, key)) for key, item in value.items()}
        return {key: item for key, item in read.items() if item is not _WRONG}

    def _plain(self, hint: object, value: object, path: Path) -> object:
        if hint is object:
            if isinstance(value, (str, int, float, bool)):
                return value
            return self._note(path, f"must be one value, got {value!r}")
        if hint is float and type(value) is int:
            return float(value)
        if type(value) is hint:
            return value
        return self._note(path, f"must be {_WORDS[hint]}, got {value!r}")  # type: ignore[index]

    def _note(self, path: Path, sentence: str) -> object:
        self.mistakes.append(Mistake(path, sentence))
        return _WRONG


class _Wrong:
    """What stands for a value that could not be read."""


_WRONG = _Wrong()


def _meant(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(names))}"
