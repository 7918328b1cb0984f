"""Records of lists of images: CSV with and without a header, JSON, and SageMaker's manifests."""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from container.classifier.errors import UserError
from container.classifier.media_types import IMAGE_SUFFIXES

MAX_BYTES = 500_000_000

# The byte order marks of UTF-16, in which Excel saves "Unicode text".
UTF_16 = (b"\xff\xfe", b"\xfe\xff")

# The first line of a CSV can name the separator, for Excel.
_SEPARATOR = re.compile(r"sep=(.)\n", re.IGNORECASE)

Record: TypeAlias = Mapping[str, object]
Numbered: TypeAlias = tuple[int, Record]

# Suffixes of images that tables list, which need not be of a format that training reads.
_SUFFIXES = IMAGE_SUFFIXES | {".ppm", ".pgm", ".jp2", ".pnm"}

# Before a capital letter, as in ImageId.
_WORD_END = re.compile(r"(?<=[a-z])(?=[A-Z])")

# What tables have for a missing value, and for no and yes; in lower case.
MISSING = frozenset({"nan", "null", "n/a", "#n/a", "<na>"})
FLAGS: Mapping[str, bool] = {
    **dict.fromkeys(("0", "0.0", "false", "no"), False),
    **dict.fromkeys(("1", "1.0", "true", "yes"), True),
}


def read_text(path: Path, encoding: str | None = None) -> str:
    """Read a text file, UTF-8 or UTF-16 with a byte order mark if no encoding is given.

    Raises:
        UserError: it is too large, or has another encoding.
        OSError: it cannot be read.
    """
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path} is larger than {MAX_BYTES // 10**6} MB: split the manifest")
    data = path.read_bytes()
    try:
        text = data.decode(encoding or ("utf-16" if data.startswith(UTF_16) else "utf-8"))
        return io.StringIO(text.removeprefix("\ufeff"), newline=None).read()
    except (UnicodeDecodeError, LookupError) as error:
        raise UserError(
            f"{path} is not {encoding or 'UTF-8'}: save it as UTF-8, or name its encoding with "
            "--encoding"
        ) from error


def read_records(
    path: Path, known: Collection[str], encoding: str | None = None
) -> Iterator[Numbered]:
    """Yield the records of a list with their line numbers.

    Records without names of their columns have the numbers `1`, `2` and so on as keys, unless it
    is clear which column is the `path` and which the `label`.

    Args:
        path: A .csv, .tsv, .txt, .lst, .jsonl, .ndjson, .json or .manifest file.
        known: Names of columns, in lower case, by which a header is recognized.
        encoding: None: UTF-8.

    Raises:
        UserError: its format is unknown or damaged.
        OSError: it cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix in {".csv", ".tsv", ".txt"}:
        return _read_table(path, read_text(path, encoding), known)
    if suffix not in _READERS:
        raise UserError(f"{path} is not a manifest: expected .csv, .tsv, .lst, .jsonl or .manifest")
    return _READERS[suffix](path, read_text(path, encoding))


def delimiter_of(text: str) -> str:
    """Return the delimiter of a table, by its first line."""
    line = text.partition("\n")[0]
    delimiter = max(",;\t", key=line.count)
    # Next to other delimiters, a bar separates several labels.
    return delimiter if delimiter in line or "|" not in line else "|"


def is_image_path(text: str) -> bool:
    """Return whether a cell is the path of an image."""
    return PurePosixPath(text.strip()).suffix.lower() in _SUFFIXES


def column_name(name: str) -> str:
    """Return the name of a column as it is compared: lower case, with underscores."""
    return "_".join(_WORD_END.sub(" ", name).lower().replace("-", " ").split())


def cell(record: Record, name: str) -> str:
    """Return a value of a record as text; empty if it is missing, or is a list or an object."""
    value = record.get(name)
    # Tables of pandas have NaN for a missing value.
    if not isinstance(value, str | int | float) or (isinstance(value, float) and math.isnan(value)):
        return ""
    text = str(value).strip()
    return "" if text.lower() in MISSING else text


def _read_table(path: Path, text: str, known: Collection[str]) -> Iterator[Numbered]:
    rows = list(_rows(path, text))
    if not rows:
        return
    first = rows[0][1]
    # A name that is known comes first: a header can be the path of no image.
    has_names = any(column_name(cell) in known for cell in first)
    has_header = has_names or not (any(map(is_image_path, first)) or _is_list(first))
    names = first if has_header else _names(first)
    for number, cells in rows[1:] if has_header else rows:
        _check_cells(f"{path}, row {number}", names, cells, known)
        yield number, dict(zip(names, cells, strict=False))


def _check_cells(
    row: str, names: Sequence[str], cells: Sequence[str], known: Collection[str]
) -> None:
    """Check that every value has a column, and every column that can be used one value."""
    if any(cell.strip() for cell in cells[len(names) :]):
        raise UserError(
            f"{row} has more cells than the {len(names)} columns: quote values that contain the "
            "separator"
        )
    values: dict[str, str] = {}
    for name, cell in zip(names, cells, strict=False):
        if values.setdefault(name, cell) != cell and column_name(name) in known:
            raise UserError(
                f"{row}: the column {name!r} exists twice, with {values[name]!r} and {cell!r}: "
                "rename or remove one of them"
            )


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the numbered rows that are not blank."""
    named = _SEPARATOR.match(text)
    text = text[named.end() :] if named else text
    delimiter = named[1] if named else delimiter_of(text)
    if path.suffix.lower() == ".txt" and delimiter not in text.partition("\n")[0]:
        yield from ((number, _cells(line)) for number, line in _lines(text))
        return
    try:
        lines = io.StringIO(text)
        reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
        first = 2 if named else 1
        yield from ((number, row) for number, row in enumerate(reader, first) if any(row))
    except csv.Error as error:
        raise UserError(f"{path} is not a valid CSV file: {error}") from error


def _cells(line: str) -> list[str]:
    """Return the cells of a line with a space between them: a path and a label."""
    cells = line.strip().rsplit(maxsplit=1)
    has_space_in_path = len(cells) > 1 and (is_image_path(cells[1]) or "/" in cells[1])
    return [line.strip()] if has_space_in_path and not cells[0].isdecimal() else cells


def _is_list(cells: Sequence[str]) -> bool:
    """Return whether a row is a path without a label and a suffix, as in class/name."""
    return len(cells) == 1 and "/" in cells[0]


def _names(first: Sequence[str]) -> list[str]:
    """Return names for the columns of a table without a header."""
    names = [str(number) for number in range(1, len(first) + 1)]
    paths = [index for index, cell in enumerate(first) if is_image_path(cell)]
    if len(first) == 1:
        names[0] = "path"
    elif len(paths) == 1:
        names[paths[0]] = "path"
        if len(names) == 2:  # noqa: PLR2004
            names[1 - paths[0]] = "label"
    return names


def _read_lst(path: Path, text: str) -> Iterator[Numbered]:
    """Read lines of an index, the number of a class and a path, separated by tabs.

    AWS's documentation shows them with spaces.
    """
    for number, line in _lines(text):
        cells = line.split("\t") if "\t" in line else line.split(maxsplit=2)
        cells = [cell.strip() for cell in cells]
        if len(cells) != 3:  # noqa: PLR2004
            raise UserError(
                f"{path}, line {number}: expected an index, the number of one class and a path, "
                f"separated by tabs, got {line[:80]!r}"
            )
        _, label, image = cells
        # im2rec writes numbers as 3.000000.
        label = label.rstrip("0").rstrip(".") if "." in label else label
        yield number, {"path": image, "label": label}


def _read_json_lines(path: Path, text: str) -> Iterator[Numbered]:
    for number, line in _lines(text):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number} is not JSON: {str(error)[:80]}") from error
        if not isinstance(record, dict):
            raise UserError(f"{path}, line {number} is not a JSON object")
        yield number, record


def _read_json(path: Path, text: str) -> Iterator[Numbered]:
    """Read JSON Lines, or a document with records, columns, labels or COCO's lists."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        yield from _read_json_lines(path, text)
        return
    if isinstance(document, list) and all(isinstance(item, dict) for item in document):
        yield from enumerate(document, 1)
    elif isinstance(document, dict) and (records := _records(document)) is not None:
        yield from enumerate(records, 1)
    else:
        yield from _read_json_lines(path, text)


def _records(document: Mapping[str, Any]) -> list[Record] | None:
    """Return the records of a JSON object; None if it is something else."""
    values = list(document.values())
    if _are_objects(document.get("images")) and _are_objects(document.get("annotations")):
        return _coco_records(document)
    if len(tables := [value for value in values if value and _are_objects(value)]) == 1:
        return list(tables[0])
    if all(isinstance(value, list) for value in values):
        if len(set(map(len, values))) != 1 or sum(map(_are_paths, values)) != 1 or len(values) < 2:  # noqa: PLR2004
            # Lists of paths by label.
            return [
                {"path": name, "label": label} for label in document for name in document[label]
            ]
        document = {name: dict(enumerate(column)) for name, column in document.items()}
        values = list(document.values())
    if values and all(isinstance(value, dict) for value in values):
        # Columns, as pandas writes them: the values by row, or lists of equal length.
        return [{name: document[name].get(row) for name in document} for row in values[0]]
    if all(is_image_path(name) for name in document):
        return [{"path": name, "label": label} for name, label in document.items()]
    return None


def _are_paths(values: Sequence[object]) -> bool:
    return all(isinstance(value, str) and is_image_path(value) for value in values)


def _are_objects(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _coco_records(document: Mapping[str, Any]) -> list[Record]:
    """Join the lists of COCO's format, as iNaturalist has them: a record per annotation."""
    paths = {str(item.get("id")): item.get("file_name") for item in document["images"]}
    known = document.get("categories")
    categories = known if isinstance(known, list) and _are_objects(known) else []
    names = {str(item.get("id")): item.get("name") for item in categories}
    pairs = [
        (str(item.get("image_id")), str(item.get("category_id")))
        for item in document["annotations"]
    ]
    return [
        {"path": paths.get(image), "label": names.get(category, category)}
        for image, category in pairs
    ]


_READERS: Mapping[str, Callable[[Path, str], Iterator[Numbered]]] = {
    ".lst": _read_lst,
    ".json": _read_json,
    **dict.fromkeys((".jsonl", ".manifest", ".ndjson"), _read_json_lines),
}


def _lines(text: str) -> Iterable[tuple[int, str]]:
    """Return the numbered lines that are not blank."""
    return ((number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip())
