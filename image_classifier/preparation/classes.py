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
from image_classifier.preparation.tables import column_name, delimiter_of, read_text

SUFFIXES = (".json", ".csv", ".tsv", ".txt")

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
        UserError: it is something else, or two labels have one name, or one label two.
        OSError: it cannot be read.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"{path} is not a list of names of classes: expected {', '.join(SUFFIXES)}, such as "
            'JSON with {"0": "cat"}'
        )
    text = read_text(path, encoding)
    pairs = _read_json(path, text) if path.suffix.lower() == ".json" else _read_table(path, text)
    names: dict[str, str] = {}
    for label, name in ((label.strip(), normalized(name.strip())) for label, name in pairs):
        if names.setdefault(label, name) != name:
            raise UserError(
                f"{path} gives the label {label!r} two names, {names[label]!r} and {name!r}: keep "
                "one of them"
            )
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
        UserError: a label has no name, or two labels have the same, such as 1 and 01.
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
    labels: dict[str | None, str] = {}
    for label, name in found.items():
        if labels.setdefault(name, label) != label:
            raise UserError(
                f"--classes gives the labels {labels[name]!r} and {label!r} one name, {name!r}: "
                "rename one of the folders or labels"
            )
    return [replace(image, class_name=found[image.class_name] or "") for image in images]


def _number(label: str) -> str:
    # Tables of pandas have 3.0 for a number in a column with missing values.
    label = label.removesuffix(".0")
    return str(int(label)) if label.isascii() and label.isdecimal() else label


def _read_json(path: Path, text: str) -> list[tuple[str, str]]:
    try:
        document = json.loads(text, object_pairs_hook=lambda pairs: _object(path, pairs))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {str(error)[:80]}") from error
    if isinstance(document, dict) and isinstance(document.get("id2label"), dict):
        # As in config.json of Hugging Face.
        document = document["id2label"]
    if isinstance(document, list):
        is_pairs = all(isinstance(item, list) and len(item) == 2 for item in document)  # noqa: PLR2004
        found = [tuple(item) for item in document] if is_pairs else list(enumerate(document))
    elif not isinstance(document, dict):
        return []
    elif all(isinstance(value, int) for value in document.values()):
        # As torchvision's class_to_idx.
        found = [(number, name) for name, number in document.items()]
    else:
        found = list(document.items())
    return [(_text(path, label), _text(path, _name(value))) for label, value in found]


def _object(path: Path, pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if found.setdefault(key, value) != value:
            raise UserError(
                f"{path} has {key!r} twice, with {found[key]!r} and {value!r}: keep one"
            )
    return found


def _name(value: object) -> object:
    """Return the name in a value: imagenet_class_index.json has lists of a code and a name."""
    if isinstance(value, list) and value:
        return value[-1]
    return value.get("name") if isinstance(value, dict) else value


def _text(path: Path, value: object) -> str:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    raise UserError(
        f"{path} has {str(value)[:80]!r} as a label or name: expected text or numbers, such as "
        '{"0": "cat"}'
    )


def _read_table(path: Path, text: str) -> list[tuple[str, str]]:
    if path.suffix.lower() == ".txt":
        # `n01440764 tench, Tinca tinca`, or names alone.
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        rows = [line.split(maxsplit=1) for line in lines]
        if not all(len(row) > 1 and any(map(str.isdigit, row[0])) for row in rows):
            rows = [[line] for line in lines]
    else:
        reader = csv.reader(io.StringIO(text), delimiter=delimiter_of(text), skipinitialspace=True)
        rows = [row for row in reader if any(row)]
    if all(len(row) == 1 for row in rows):
        return [(str(number), row[0]) for number, row in enumerate(rows)]
    header = [column_name(cell) for cell in rows[0]]
    name = next((header.index(usual) for usual in _NAMES if usual in header), None)
    label = next((header.index(usual) for usual in _IDS if usual in header), None)
    if name is None or label is None or name == label:
        return [(row[0], row[1]) for row in rows if len(row) > 1]
    return [(row[label], row[name]) for row in rows[1:] if len(row) > max(label, name)]
