"""Lists of labeled images: labels, splits and groups of the images that their rows name."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from container.classifier.class_folders import LayoutError, check_labels
from container.classifier.errors import UserError
from container.classifier.layout import Placed, place
from container.classifier.split_names import normalized, role_of
from image_classifier.preparation import split_columns
from image_classifier.preparation.findings import Finding
from image_classifier.preparation.labels import Labeled
from image_classifier.preparation.references import References
from image_classifier.preparation.tables import (
    FLAGS,
    Numbered,
    Record,
    cell,
    column_name,
    read_records,
)

# Usual names of the columns; `--columns` names others.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "path": (
        "path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path",
        "image_name", "image_id", "img", "img_path", "image_file", "images", "fname", "file_id",
        "id", "id_code", "filepaths", "file_paths", "image_paths", "filenames",
    ),
    "label": (
        "label", "labels", "class", "class_name", "category", "target", "breed", "species",
        "class_id", "classid", "label_name", "category_name", "diagnosis", "dx", "name",
        "class_label", "classname",
    ),
    "split": split_columns.NAMES,
    "group": (),
}  # fmt: skip

# Keys of augmented manifests.
SOURCE, METADATA = "source-ref", "-metadata"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a manifest."""

    reference: str
    """The image's path, or its address in S3."""

    label: str | None
    """None: the folder of the image is its class."""

    split: str | None = None
    group: str | None = None


def read(
    path: Path, columns: Mapping[str, str], encoding: str | None = None
) -> tuple[list[Row], list[Finding]]:
    """Read a manifest; return its rows, and findings about columns that are not used.

    Args:
        path: A .csv, .tsv, .txt, .lst, .jsonl, .ndjson, .json or .manifest file.
        columns: The manifest's names of the columns (or keys) `path`, `label`, `split`, `group`.
        encoding: None: UTF-8.

    Raises:
        UserError: its format is unknown or damaged, or a row has no path or label.
        OSError: it cannot be read.
    """
    usual = {name for names in COLUMNS.values() for name in names}
    chosen = {column_name(name) for name in columns.values() if not name.isdecimal()}
    records = list(read_records(path, usual | chosen, encoding))
    if not records:
        raise UserError(f"{path} lists no images")
    # The columns of .lst files have no names.
    columns = {} if path.suffix.lower() == ".lst" else columns
    keys = _keys(path, records, columns)
    keys.pop("split", None)
    names = [name for name in records[0][1] if split_columns.is_split_column(name)]
    names = [name for name in names if name not in keys.values()]
    splits, unused = split_columns.read_splits(path, records, names, columns.get("split"))
    rows = [
        _row(path, number, record, keys, split)
        for (number, record), split in zip(records, splits, strict=True)
    ]
    return rows, [Finding("unused-column", None, text) for text in unused]


def label_by_manifests(
    manifests: Mapping[str, Sequence[Row]], names: Sequence[str], *, has_splits: bool = True
) -> tuple[list[Labeled], list[Finding]]:
    """Label the images that manifests list.

    Args:
        manifests: Rows by manifest name; with several manifests, each name stands for a split.
        names: The existing images.
        has_splits: Whether folders can be splits, if the manifests have none.

    Returns:
        The labeled images, and findings about rows without an image and images without a row.

    Raises:
        UserError: the images that exist are of one class at most, rows contradict each other, or
            the labels are no classes.
    """
    labeled: dict[str, Labeled] = {}
    findings: list[Finding] = []
    folders: dict[str, Placed] | None = None
    for manifest, rows in manifests.items():
        # Or that of its folder, as in train/metadata.csv.
        split = role_of(Path(manifest).stem) or role_of(Path(manifest).parent.name)
        split = split if len(manifests) > 1 else None
        references = References(names, [row.reference for row in rows], _folder(manifest))
        for row in rows:
            name = references.find(row.reference)
            if name is None:
                kind, text = references.why_not(row.reference)
                findings.append(Finding(kind, row.reference, f"{manifest} lists it, but {text}"))
                continue
            label = row.label
            if label is None:
                folders = folders or {item.name: item for item in place(names)}
                label = folders[name].class_name
            if label is None:
                raise UserError(f"{manifest} has no label for {name}, and it is in no class folder")
            found = Labeled(name, label, name, row.split or split, row.group)
            if labeled.setdefault(name, found) != found:
                raise UserError(f"{manifest} has contradicting rows for {name}: keep one of them")
    _check_listed(manifests, labeled, findings, names)
    unlisted = [name for name in names if name not in labeled]
    findings += [Finding("unlabeled", name, "no manifest has a row for it") for name in unlisted]
    images = [labeled[name] for name in sorted(labeled)]
    without = [image.name for image in images if image.split is None]
    if without and len(without) < len(labeled):
        raise UserError(
            f"some images have a split and others do not, for example {without[0]}: add it"
        )
    try:
        check_labels({image.name: image.class_name for image in images}, in_names=False)
    except LayoutError as error:
        raise UserError(f"{error}, or name another column with --columns label=NAME") from error
    return (_with_splits(images) if without and has_splits else images), findings


def _check_listed(
    manifests: Mapping[str, Sequence[Row]],
    labeled: Mapping[str, Labeled],
    missing: Sequence[Finding],
    names: Sequence[str],
) -> None:
    """Check that the listed images that exist have several classes, if the list has.

    Raises:
        UserError: they do not; the message contains the first of the existing `names`.
    """
    found_labels = sorted({image.class_name for image in labeled.values()})
    listed_labels = {row.label for rows in manifests.values() for row in rows}
    if missing and len(found_labels) < min(2, len(listed_labels)):
        what = f"no image except those of {found_labels[0]!r}" if found_labels else "no image"
        raise UserError(
            f"{what} that {', '.join(manifests)} lists exists, for example {missing[0].path}: "
            f"{missing[0].detail}; paths are relative to the source's folder, which contains "
            f"{names[0]}"
        )


def _folder(manifest: str) -> str:
    """Return the folder of a manifest in the source; empty for one that is elsewhere."""
    path = PurePosixPath(manifest.replace("\\", "/"))
    return "" if path.is_absolute() or ".." in path.parts else normalized(str(path.parent))


def _with_splits(images: Sequence[Labeled]) -> list[Labeled]:
    """Return images with the splits of their folders, if they are in several splits."""
    anything = re.compile("(?P<label>.)")
    placed = place([image.name for image in images], anything)
    pairs = list(zip(images, placed, strict=True))
    is_class = all(role_of(image.class_name) == item.split for image, item in pairs)
    if is_class or len({item.split for item in placed}) == 1:
        return list(images)
    return [replace(image, split=item.split) for image, item in pairs]


def _keys(
    path: Path, records: Sequence[Numbered], columns: Mapping[str, str]
) -> dict[str, str | Sequence[str]]:
    """Return the manifest's names of the columns; several for the labels of a one-hot table."""
    found = [name for name in records[0][1] if name]
    if SOURCE in found:
        # The label of an augmented manifest is the only key with metadata, or the only other key.
        others = [key for key in found if key != SOURCE and not key.endswith(METADATA)]
        others = [key for key in others if f"{key}{METADATA}" in found] or others
        label = {"label": others[0]} if len(others) == 1 else {}
        columns = {"path": SOURCE, **label, **columns}
    by_name = {column_name(name): name for name in found}
    keys: dict[str, str | Sequence[str]] = {}
    for meaning, usual in COLUMNS.items():
        if wanted := columns.get(meaning):
            if wanted not in found:
                raise UserError(f"{path} has no column {wanted!r}: it has {', '.join(found)}")
            keys[meaning] = wanted
        elif known := next((by_name[name] for name in usual if name in by_name), None):
            keys[meaning] = known
    if "path" not in keys:
        raise _missing(path, "path", found)
    if "label" not in keys and found != ["path"]:
        others = [
            name
            for name in found
            if name not in {*keys.values(), *columns.values()}
            and not split_columns.is_split_column(name)
        ]
        if not _is_one_hot(records, others):
            raise _missing(path, "label", found)
        keys["label"] = others
    return keys


def _missing(path: Path, meaning: str, found: Sequence[str]) -> UserError:
    return UserError(
        f"{path} has no column with a usual name for the {meaning}: it has {', '.join(found)}; "
        f"name it with --columns {meaning}=NAME"
    )


def _is_one_hot(records: Sequence[Numbered], columns: Sequence[str]) -> bool:
    return len(columns) > 1 and all(
        cell(record, name).lower() in FLAGS for _, record in records for name in columns
    )


def _row(
    path: Path,
    number: int,
    record: Record,
    keys: Mapping[str, str | Sequence[str]],
    split: str | None,
) -> Row:
    values: dict[str, str] = {}
    for meaning, key in keys.items():
        if not isinstance(key, str):
            values[meaning] = _hot_column(path, number, record, key)
            continue
        values[meaning] = cell(record, key)
        metadata = record.get(f"{key}{METADATA}")
        if meaning == "label" and isinstance(metadata, dict):
            values[meaning] = cell(metadata, "class-name") or values[meaning]
    if not values["path"] or not values.get("label", "-"):
        raise UserError(f"{path}, row {number} has no path or no label: {str(dict(record))[:100]}")
    return Row(values["path"], values.get("label"), split, values.get("group") or None)


def _hot_column(path: Path, number: int, record: Record, columns: Sequence[str]) -> str:
    """Return the column of a one-hot row that is 1."""
    hot = [name for name in columns if FLAGS[cell(record, name).lower()]]
    if len(hot) != 1:
        raise UserError(
            f"{path}, row {number} has {len(hot)} labels ({', '.join(hot) or 'none'}): every image "
            "needs exactly one; remove this row, or name a column with --columns label=NAME"
        )
    return hot[0]
