"""Files that give the numbers or codes of classes names, such as `{"0": "cat", "1": "dog"}`."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from container.classifier.errors import UserError
from container.classifier.split_names import normalized
from image_classifier.preparation.labels import Labeled
from image_classifier.preparation.tables import column_name, read_text

# Names of the columns of a table with a header.
_IDS = ("class_id", "classid", "id", "label", "index", "class", "code", "category_id", "synset")
_NAMES = ("class_name", "classname", "name", "label_name", "signname", "sign_name", "category_name",
          "category", "description", "breed", "species", "label")  # fmt: skip


def read(path: Path, encoding: str | None = None) -> dict[str, str]:
    """Read the names of classes by their labels.

    Args:
        path: JSON (names by label, numbers by name, or a list of names), or a CSV, TSV or text with
            a label and a name in each line; lines of names alone are numbered from 0.
        encoding: None: UTF-8.

    Raises:
        UserError: it is something else, or two labels have one name.
        OSError: it cannot be read.
    """
    text = read_text(path, encoding)
    pairs = _read_json(path, text) if path.suffix.lower() == ".json" else _read_table(path, text)
    names = {str(label).strip(): normalized(name.strip()) for label, name in pairs}
    if not names or not all(names.values()):
        raise UserError(
            f'{path} has no names of classes: expected JSON such as {{"0": "cat"}}, or a CSV '
            "with a label and a name in each row"
        )
    if len(set(names.values())) < len(names):
        twice = next(name for name in names.values() if list(names.values()).count(name) > 1)
        raise UserError(f"{path} gives two labels the name {twice!r}: give each its own")
    return names


def rename(images: Sequence[Labeled], names: Mapping[str, str]) -> list[Labeled]:
    """Return images with the names of their labels.

    Raises:
        UserError: a label has no name.
    """
    # Numbers are equal with zeros before them, as in a folder 00012.
    numbers = {_number(label): name for label, name in names.items()}
    found = {
        label: names.get(label) or numbers.get(_number(label))
        for label in sorted({image.class_name for image in images})
    }
    if missing := [label for label, name in found.items() if name is None]:
        raise UserError(
            f"--classes has no name for the label {missing[0]!r}: it has {', '.join([*names][:5])}"
        )
    return [replace(image, class_name=found[image.class_name] or "") for image in images]


def _number(label: str) -> str:
    return str(int(label)) if label.isascii() and label.isdecimal() else label


def _read_json(path: Path, text: str) -> list[tuple[str, str]]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {str(error)[:80]}") from error
    if isinstance(document, list):
        return [(str(number), str(name)) for number, name in enumerate(document)]
    if not isinstance(document, dict):
        return []
    if all(isinstance(value, int) for value in document.values()):
        # As torchvision's class_to_idx.
        return [(str(number), name) for name, number in document.items()]
    # As imagenet_class_index.json: a list of a code and a name.
    return [
        (label, str(value[-1] if isinstance(value, list) and value else value))
        for label, value in document.items()
    ]


def _read_table(path: Path, text: str) -> list[tuple[str, str]]:
    if path.suffix.lower() == ".txt":
        # `n01440764 tench, Tinca tinca`, or names alone.
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        rows = [line.split(maxsplit=1) for line in lines]
        if not all(len(row) > 1 and any(map(str.isdigit, row[0])) for row in rows):
            rows = [[line] for line in lines]
    else:
        line = text.partition("\n")[0]
        delimiter = max(",;\t", key=line.count)
        rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if any(row)]
    if all(len(row) == 1 for row in rows):
        return [(str(number), row[0]) for number, row in enumerate(rows)]
    header = [column_name(cell) for cell in rows[0]]
    name = next((header.index(usual) for usual in _NAMES if usual in header), None)
    label = next((header.index(usual) for usual in _IDS if usual in header), None)
    if name is None or label is None or name == label:
        return [(row[0], row[1]) for row in rows if len(row) > 1]
    return [(row[label], row[name]) for row in rows[1:] if len(row) > max(label, name)]
