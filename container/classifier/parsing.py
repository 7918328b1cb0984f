"""Parses the strings in which SageMaker passes hyperparameters and parameters of rules.

Imports the standard library only.
"""

import ast
import json
import typing
from collections.abc import Callable
from types import NoneType
from typing import TypeAlias

from container.classifier.environment import OFF, ON
from container.classifier.errors import UserError

Value: TypeAlias = "bool | int | float | str | None"

_NULLS = frozenset({"none", "null"})


def parse(name: str, hint: object, value: object) -> Value:
    """Parse one value: Python's repr, JSON, JSON within a string, or plain text."""
    text = _unquoted(str(value).strip())
    parts = parts_of(hint)
    # Of a text such as `debug_rules`, `none` is a value, and `None` is that of Python.
    is_null = text in {"", "None", "null"} or (parts[0] is not str and text.lower() in _NULLS)
    if NoneType in parts and is_null:
        return None
    parser, description = _PARSERS.get(parts[0], _PARSERS[str])
    try:
        return parser(text)
    except (ValueError, OverflowError, SyntaxError):
        raise UserError(f"{name} must be {description}, got {text!r}") from None


def parts_of(hint: object) -> list[object]:
    """Return the types of an optional hint, with the choices of a Literal instead of `str`."""
    parts = typing.get_args(hint)
    return [inner for part in parts for inner in parts_of(part)] or [hint]


def _parse_bool(text: str) -> bool:
    lower = text.lower()
    if lower not in ON + OFF:
        raise ValueError(text)
    return lower in ON


def _parse_int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if not number.is_integer():
            raise
        return int(number)


def _unquoted(text: str) -> str:
    """Return a text without the quotes of JSON and of Python's repr, which can be nested."""
    while len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        try:
            inner = json.loads(text) if text[0] == '"' else ast.literal_eval(text)
        except (ValueError, SyntaxError):
            break
        if not isinstance(inner, str):
            break
        text = inner.strip()
    return text


_PARSERS: dict[object, tuple[Callable[[str], Value], str]] = {
    bool: (_parse_bool, "true or false"),
    int: (_parse_int, "a whole number"),
    float: (float, "a number"),
    str: (str, "a string"),
}
