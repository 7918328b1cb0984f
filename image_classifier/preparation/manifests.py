"""Lists of labeled images: CSV, JSON Lines, SageMaker's .lst and augmented manifests."""

import csv
import io
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from container.classifier.errors import UserError
from image_classifier.preparation.findings import Finding
from image_classifier.preparation.labels import Labeled, role_of

MAX_BYTES = 500_000_000

# Usual names of the columns; `--columns` names others.
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

# Keys of augmented manifests.
SOURCE, METADATA = "source-ref", "-metadata"

Record: TypeAlias = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a manifest."""

    reference: str
    """The image's path, or its address in S3."""

    label: str
    split: str | None = None
    group: str | None = None


def read(path: Path, columns: Mapping[str, str]) -> list[Row]:
    """Read a manifest.

    Args:
        path: A .csv, .tsv, .txt, .lst, .jsonl, .ndjson, .json or .manifest file.
        columns: The manifest's names of the columns (or keys) `path`, `label`, `split`, `group`.

    Raises:
        UserError: its format is unknown or damaged, or a row has no path or label.
        OSError: it cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise UserError(f"{path} is not a manifest: expected .csv, .tsv, .lst, .jsonl or .manifest")
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path} is larger than {MAX_BYTES // 10**6} MB: split the manifest")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8: save it with this encoding") from error
    keys: Mapping[str, str] = {}
    rows = []
    for number, record in _READERS[suffix](path, text):
        # The columns of .lst files have no names.
        keys = keys or _keys(path, record, {} if suffix == ".lst" else columns)
        rows.append(_row(path, number, record, keys))
    if not rows:
        raise UserError(f"{path} lists no images")
    return rows


def label_by_manifests(
    manifests: Mapping[str, Sequence[Row]], names: Sequence[str]
) -> tuple[list[Labeled], list[Finding]]:
    """Label the images that manifests list.

    Args:
        manifests: Rows by manifest name; with several manifests, each name stands for a split.
        names: The existing images.

    Returns:
        The labeled images, and findings about rows without an image and images without a row.

    Raises:
        UserError: no row has an image, or rows contradict each other.
    """
    known, by_end = frozenset(names), defaultdict[str, list[str]](list)
    for path in map(PurePosixPath, names):
        for end in {path.name, path.stem, str(path.with_suffix(""))}:
            by_end[end].append(str(path))
    labeled: dict[str, Labeled] = {}
    findings: list[Finding] = []
    for manifest, rows in manifests.items():
        split = role_of(Path(manifest).stem) if len(manifests) > 1 else None
        for row in rows:
            name = _find(row.reference, known, by_end)
            if name is None:
                text = f"{manifest} lists it, but the file does not exist"
                findings.append(Finding("missing-file", row.reference, text))
                continue
            found = Labeled(name, row.label, name, row.split or split, row.group)
            if labeled.setdefault(name, found) != found:
                raise UserError(f"{manifest} has contradicting rows for {name}: keep one of them")
    if not labeled:
        raise UserError(
            f"no image that {', '.join(manifests)} lists exists, for example {findings[0].path}: "
            f"paths are relative to the source's folder, which contains {names[0]}"
        )
    unlisted = [name for name in names if name not in labeled]
    findings += [Finding("unlabeled", name, "no manifest has a row for it") for name in unlisted]
    without = [image.name for image in labeled.values() if image.split is None]
    if without and len(without) < len(labeled):
        raise UserError(
            f"some images have a split and others do not, for example {without[0]}: add it"
        )
    return [labeled[name] for name in sorted(labeled)], findings


def _find(
    reference: str, known: Collection[str], by_end: Mapping[str, Sequence[str]]
) -> str | None:
    """Return the path of the file that a manifest refers to, or None without one candidate.

    Tries the reference and then ever shorter ends of it, because an S3 address begins with a
    bucket and a prefix. Then the file name alone, also without a suffix.
    """
    path = PurePosixPath(reference.replace("\\", "/"))
    for start in range(len(path.parts)):
        if (end := "/".join(path.parts[start:])) in known:
            return end
    for end in (str(path), path.name):
        if len(candidates := by_end.get(end, ())) == 1:
            return candidates[0]
    return None


def _read_csv(path: Path, text: str) -> Iterator[tuple[int, Record]]:
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    try:
        reader = csv.DictReader(io.StringIO(text), delimiter=delimiter, strict=True)
        yield from enumerate(reader, start=2)
    except csv.Error as error:
        raise UserError(f"{path} is not a valid CSV file: {error}") from error


def _read_lst(path: Path, text: str) -> Iterator[tuple[int, Record]]:
    """Read lines of an index, the number of a class and a path, separated by tabs."""
    for number, line in _lines(text):
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) != 3:  # noqa: PLR2004
            raise UserError(
                f"{path}, line {number}: expected an index, the number of one class and a path, "
                f"separated by tabs, got {line[:80]!r}"
            )
        _, label, image = cells
        # im2rec writes numbers as 3.000000.
        label = label.rstrip("0").rstrip(".") if "." in label else label
        yield number, {"path": image, "label": label}


def _read_json_lines(path: Path, text: str) -> Iterator[tuple[int, Record]]:
    for number, line in _lines(text):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number} is not JSON: {str(error)[:80]}") from error
        if not isinstance(record, dict):
            raise UserError(f"{path}, line {number} is not a JSON object")
        yield number, record


_READERS: Mapping[str, Callable[[Path, str], Iterator[tuple[int, Record]]]] = {
    **dict.fromkeys((".csv", ".tsv", ".txt"), _read_csv),
    ".lst": _read_lst,
    **dict.fromkeys((".jsonl", ".json", ".manifest", ".ndjson"), _read_json_lines),
}


def _lines(text: str) -> Iterable[tuple[int, str]]:
    """Return the numbered lines that are not blank."""
    return ((number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip())


def _keys(path: Path, first: Record, columns: Mapping[str, str]) -> dict[str, str]:
    """Return the manifest's names of the columns, by its first record."""
    # csv puts surplus cells under None.
    found = [name for name in first if name]
    if SOURCE in found:
        # The label of an augmented manifest is the only other key, or `class`.
        others = [key for key in found if key != SOURCE and not key.endswith(METADATA)]
        columns = {"path": SOURCE, "label": others[0] if len(others) == 1 else "class", **columns}
    by_lower = {name.strip().lower(): name for name in found}
    keys = {}
    for meaning, usual in COLUMNS.items():
        if wanted := columns.get(meaning):
            if wanted not in found:
                raise UserError(f"{path} has no column {wanted!r}: it has {', '.join(found)}")
            keys[meaning] = wanted
        elif known := next((by_lower[name] for name in usual if name in by_lower), None):
            keys[meaning] = known
        elif meaning in {"path", "label"}:
            raise UserError(
                f"{path} has no column with a usual name for the {meaning}: it has "
                f"{', '.join(found)}; name it with --columns {meaning}=NAME"
            )
    return keys


def _row(path: Path, number: int, record: Record, keys: Mapping[str, str]) -> Row:
    values: dict[str, str] = {}
    for meaning, key in keys.items():
        value = record.get(key)
        metadata = record.get(f"{key}{METADATA}")
        if meaning == "label" and isinstance(metadata, dict):
            value = metadata.get("class-name", value)
        if isinstance(value, str | int | float) and str(value).strip():
            values[meaning] = str(value).strip()
    if "path" not in values or "label" not in values:
        raise UserError(f"{path}, row {number} has no path or no label: {str(dict(record))[:100]}")
    split = values.get("split")
    role = role_of(split) if split else None
    if split and not role:
        raise UserError(
            f"{path}, row {number}: {split!r} is not a split: use train, validation or test"
        )
    return Row(values["path"], values["label"], role, values.get("group"))
