"""Find the line of each key in a TOML file; `tomllib` does not report lines."""

import tomllib
from collections.abc import Iterator, Mapping

Path = tuple[str, ...]


def find(text: str) -> dict[Path, int]:
    """Return the first line, counted from one, of every table and key of a valid document."""
    found: dict[Path, int] = {}
    table: list[str] = []
    start = 1
    for number, line in enumerate(text.splitlines(), 1):
        if start == number and line.lstrip().startswith("["):
            table = []
        table.append(line)
        try:
            content = tomllib.loads("\n".join(table))
        except tomllib.TOMLDecodeError:
            # A value that spans several lines.
            continue
        for path in _paths(content):
            found.setdefault(path, start)
        start = number + 1
    return found


def line_of(path: Path, lines: Mapping[Path, int]) -> int:
    """Return the line of a key, else that of the nearest table around it."""
    return next((lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in lines), 1)


def _paths(table: Mapping[str, object], parent: Path = ()) -> Iterator[Path]:
    for key, value in table.items():
        yield (path := (*parent, key))
        if isinstance(value, Mapping):
            yield from _paths(value, path)
