"""`--set KEY=VALUE`: values that replace those of the settings file, with the same checks."""

import tomllib
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from container.classifier.errors import UserError
from image_classifier.settings.schema import Settings
from image_classifier.settings.section import KeyPath, Section

EXAMPLE = "such as --set training.spot=true"


def apply(content: dict[str, Any], pairs: Sequence[str]) -> set[KeyPath]:
    """Set keys of a parsed settings file; return them.

    Args:
        content: the tables of the file; changed in place.
        pairs: texts KEY=VALUE. The key is dotted as in TOML. The value is TOML too; if it is not,
            or if the key takes text, it is text, which needs no quotation marks.

    Raises:
        UserError: a text is not KEY=VALUE, or a key is below one that is not a table.
    """
    paths = set()
    for pair in pairs:
        key, separator, text = pair.partition("=")
        path = _parse_key(key) if separator else ()
        if not path:
            raise UserError(f"--set needs KEY=VALUE, got {pair!r}; {EXAMPLE}")
        table = content
        for depth, name in enumerate(path[:-1], 1):
            below = table.setdefault(name, {})
            if not isinstance(below, dict):
                above = ".".join(path[:depth])
                raise UserError(f"--set {key.strip()}: {above} is not a table, got {below!r}")
            table = below
        table[path[-1]] = _parse_value(path, text.strip())
        paths.add(path)
    return paths


def _parse_key(text: str) -> KeyPath:
    try:
        content: object = tomllib.loads(f"{text} = 0") if "\n" not in text else {}
    except tomllib.TOMLDecodeError:
        return ()
    path = []
    while isinstance(content, dict) and content:
        name, content = next(iter(content.items()))
        path.append(name)
    return tuple(path)


def _parse_value(path: KeyPath, text: str) -> object:
    if "\n" in text:
        return text
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    is_text = isinstance(value, int | float) and _takes_text(path)
    # TOML has dates, and the settings file has none.
    is_known = isinstance(value, str | int | float | list | dict)
    return value if is_known and not is_text else text


def _takes_text(path: KeyPath) -> bool:
    """Return whether the value of a key is text, as `environment.NAME` is."""
    kind: object = Settings
    for name in path:
        if isinstance(kind, type) and issubclass(kind, Section):
            field = kind.model_fields.get(name)
            kind = None if field is None else _without_none(field.annotation)
        elif typing.get_origin(kind) in {dict, Mapping}:
            kind = _without_none(typing.get_args(kind)[1])
        else:
            return False
    return kind is str


def _without_none(hint: object) -> object:
    """Return the type of an optional value, without its checks."""
    kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
    is_optional = type(None) in typing.get_args(hint)
    if is_optional or typing.get_origin(hint) is typing.Annotated:
        return _without_none(kinds[0])
    return hint
