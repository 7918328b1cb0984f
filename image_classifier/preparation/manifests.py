"""Lists of labeled images: CSV, JSON Lines, SageMaker's .lst and augmented manifests."""

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from container.classifier.errors import UserError
from image_classifier.preparation.findings import Finding
from image_classifier.preparation.labels import Labeled, role_of

MAX_BYTES = 500_000_000

# What people call the columns; `--columns` names others.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "path": (
        "path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path",
        "image_name", "image_id", "img", "id",
    ),
    "label": (
        "label", "labels", "class", "class_name", "category", "target", "breed", "species", "name",
    ),
    "split": ("split", "subset", "set", "partition"),
    "group": (),
}  # fmt: skip

SOURCE = "source-ref"
METADATA = "-metadata"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a manifest."""

    reference: str
    """The image's path, or its address in S3."""

    label: str
    split: str | None = None
    group: str | None = None


def read(path: Path, columns: Mapping[str, str]) -> list[Row]:
    """Read a manifest, whose kind its name and content tell.

    Args:
        path: Of a .csv, .tsv, .lst, .jsonl, .json or .manifest file.
        columns: What the columns (or keys) `path`, `label`, `split`, `group` are called there.

    Raises:
        UserError: it cannot be read, or lacks a path or a label.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            message = f"{path} is larger than {MAX_BYTES // 10**6} MB: a manifest is a list"
            raise UserError(message)
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}"
        raise UserError(message) from error
    except UnicodeDecodeError as error:
        message = f"{path} is not UTF-8: save it as such"
        raise UserError(message) from error
    kind = path.suffix.lower()
    if not text.strip():
        message = f"{path} is empty"
        raise UserError(message)
    if kind == ".lst":
        rows = list(_lst(path, text))
    elif kind in {".jsonl", ".json", ".manifest", ".ndjson"}:
        rows = list(_json_lines(path, text, columns))
    elif kind in {".csv", ".tsv", ".txt"}:
        rows = list(_csv(path, text, columns))
    else:
        message = f"{path} is no manifest: expected .csv, .tsv, .lst, .jsonl or .manifest"
        raise UserError(message)
    if not rows:
        message = f"{path} lists nothing"
        raise UserError(message)
    return rows


def joined(
    manifests: Mapping[str, Sequence[Row]], names: Sequence[str]
) -> tuple[list[Labeled], list[Finding]]:
    """Find the images that manifests name.

    Args:
        manifests: The rows by the names of their files; of several files the name tells the split.
        names: The images that are there.

    Returns:
        The labeled images, and findings about files and rows that have no counterpart.

    Raises:
        UserError: nothing fits, or an image has two labels.
    """
    finder = _Finder(names)
    labeled: dict[str, Labeled] = {}
    findings: list[Finding] = []
    for manifest, rows in manifests.items():
        split = role_of(Path(manifest).stem) if len(manifests) > 1 else None
        for row in rows:
            name = finder.find(row.reference)
            if name is None:
                findings.append(
                    Finding("missing-file", row.reference, f"{manifest} names it: it is not there")
                )
                continue
            found = Labeled(name, row.label, name, row.split or split, row.group)
            if labeled.setdefault(name, found) != found:
                message = f"{manifest} says two things of {name}: keep one of its rows"
                raise UserError(message)
    if not labeled:
        message = (
            f"none of the images that {', '.join(manifests)} names is there, such as "
            f"{findings[0].path}: paths count from the source's folder, where {names[0]} lies"
        )
        raise UserError(message)
    findings += [
        Finding("unlabeled", name, "no manifest has a row for it")
        for name in names
        if name not in labeled
    ]
    _check_splits(list(labeled.values()))
    return [labeled[name] for name in sorted(labeled)], findings


class _Finder:
    """Finds a file by what a manifest calls it."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = frozenset(names)
        self._by_end: dict[str, list[str]] = defaultdict(list)
        for name in names:
            path = PurePosixPath(name)
            for end in {path.name, path.stem, str(path.with_suffix(""))}:
                self._by_end[end].append(name)

    def find(self, reference: str) -> str | None:
        """Return the path of the file that is meant, None where it is none or not sure.

        The whole reference, or as much of its end as is there: an address in S3 begins with a
        bucket and a prefix that the copy here lacks. Then its name alone, and without an ending.
        """
        path = PurePosixPath(reference.replace("\\", "/"))
        parts = path.parts
        for start in range(len(parts)):
            if (end := "/".join(parts[start:])) in self._names:
                return end
        for end in (str(path), path.name):
            if len(meant := self._by_end.get(end, [])) == 1:
                return meant[0]
        return None


def _csv(path: Path, text: str, columns: Mapping[str, str]) -> Iterator[Row]:
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    try:
        reader = csv.DictReader(io.StringIO(text), delimiter=delimiter, strict=True)
        keys = _keys(path, list(reader.fieldnames or ()), columns)
        for number, row in enumerate(reader, start=2):
            yield _row(path, number, row, keys)
    except csv.Error as error:
        message = f"{path} is no CSV: {error}"
        raise UserError(message) from error


def _lst(path: Path, text: str) -> Iterator[Row]:
    """Read lines of an index, a class's number and a path, with tabs between them."""
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        cells = line.split("\t")
        if len(cells) != 3:  # noqa: PLR2004
            message = (
                f"{path}, line {number}: expected an index, one class's number and a path with "
                f"tabs between them, got {line[:80]!r}"
            )
            raise UserError(message)
        label = cells[1].strip()
        # im2rec writes numbers as 3.000000.
        yield Row(cells[2].strip(), label.rstrip("0").rstrip(".") if "." in label else label)


def _json_lines(path: Path, text: str, columns: Mapping[str, str]) -> Iterator[Row]:
    keys: Mapping[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            message = f"{path}, line {number} is no JSON: {str(error)[:80]}"
            raise UserError(message) from error
        if not isinstance(row, dict):
            message = f"{path}, line {number} is no JSON object, one a line"
            raise UserError(message)
        if not keys:
            augmented = {"path": SOURCE, "label": _attribute(row)} if SOURCE in row else {}
            keys = _keys(path, list(row), {**augmented, **columns})
        metadata = row.get(f"{keys['label']}{METADATA}")
        if isinstance(metadata, dict) and "class-name" in metadata:
            row = {**row, keys["label"]: metadata["class-name"]}
        yield _row(path, number, row, keys)


def _attribute(row: Mapping[str, object]) -> str:
    """Return the key of an augmented manifest's label: the only one that is left, or `class`."""
    left = [key for key in row if key != SOURCE and not key.endswith(METADATA)]
    return left[0] if len(left) == 1 else "class"


def _keys(path: Path, found: Sequence[str], columns: Mapping[str, str]) -> dict[str, str]:
    by_lower = {name.strip().lower(): name for name in found if name}
    keys = {}
    for meaning, usual in COLUMNS.items():
        if wanted := columns.get(meaning):
            if wanted not in found:
                message = f"{path} has no column {wanted!r}: it has {', '.join(found)}"
                raise UserError(message)
            keys[meaning] = wanted
        elif known := next((by_lower[name] for name in usual if name in by_lower), None):
            keys[meaning] = known
    for meaning in ("path", "label"):
        if meaning not in keys:
            message = (
                f"{path} has no column that is known as {meaning}: it has {', '.join(found)}; "
                f"say which with --columns {meaning}=NAME"
            )
            raise UserError(message)
    return keys


def _row(path: Path, number: int, row: Mapping[str, object], keys: Mapping[str, str]) -> Row:
    values: dict[str, str] = {}
    for meaning, key in keys.items():
        value = row.get(key)
        if isinstance(value, str | int | float) and str(value).strip():
            values[meaning] = str(value).strip()
    if "path" not in values or "label" not in values:
        message = f"{path}, row {number} has no path or no label: {str(dict(row))[:100]}"
        raise UserError(message)
    split = values.get("split")
    if split and not (known := role_of(split)):
        message = f"{path}, row {number}: {split!r} is no split: expected train, validation, test"
        raise UserError(message)
    return Row(values["path"], values["label"], known if split else None, values.get("group"))


def _check_splits(images: Sequence[Labeled]) -> None:
    """Refuse manifests that know the split of some images alone."""
    without = [image.name for image in images if image.split is None]
    if without and len(without) < len(images):
        message = f"some images have a split and others none, such as {without[0]}: give it one"
        raise UserError(message)
