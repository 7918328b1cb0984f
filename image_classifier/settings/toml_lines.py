"""Find the line of each key in a TOML file; `tomllib` does not report lines."""

import re
import tomllib
from collections.abc import Mapping

Path = tuple[str, ...]

_HEADER = re.compile(r"\s*\[\[?(?P<name>[^\[\]]+)\]\]?\s*(#.*)?$")
_KEY = re.compile(
    r"\s*(?P<name>(?:[\w-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[\w-]+|\"[^\"]*\"))*)\s*="
)
_PART = re.compile(r"\"([^\"]*)\"|'([^']*)'|([\w-]+)")


def find(text: str) -> dict[Path, int]:
    """Return the first line, counted from one, of every table and key of a valid document."""
    found: dict[Path, int] = {}
    table: Path = ()
    statement: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not statement:
            if header := _HEADER.match(line):
                table = _parts(header["name"])
                found.setdefault(table, number)
                continue
            if key := _KEY.match(line):
                found.setdefault((*table, *_parts(key["name"])), number)
        statement.append(line)
        # A value can span several lines.
        if _is_complete("\n".join(statement)):
            statement = []
    return found


def line_of(path: Path, lines: Mapping[Path, int]) -> int:
    """Return the line of a key, else that of the nearest table around it."""
    return next((lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in lines), 1)


def _parts(name: str) -> Path:
    return tuple("".join(groups) for groups in _PART.findall(name))


def _is_complete(statement: str) -> bool:
    try:
        tomllib.loads(statement)
    except tomllib.TOMLDecodeError:
        return False
    return True
