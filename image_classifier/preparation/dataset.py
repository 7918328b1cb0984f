"""A prepared data set: splits with class folders, a manifest, and class counts."""

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from container.classifier.errors import UserError
from image_classifier.preparation.conversion import convert, suffix_of, written_name
from image_classifier.preparation.labels import Labeled
from image_classifier.preparation.quarantine import Transfer
from image_classifier.preparation.scan import Scan

MANIFEST = "manifest.jsonl"
FINDINGS = "findings.jsonl"
PAGE = "report.html"
TABLES = "info_*.csv"


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the manifest."""

    path: str
    sha256: str
    size_bytes: int
    mode: str
    width: int
    height: int
    label: str
    split: str
    group: str | None
    source: str
    """The image's path in its source."""


def write(
    folder: Path,
    images: Sequence[Labeled],
    scan: Scan,
    out: Path,
    transfer: Transfer,
    *,
    quiet: bool,
) -> None:
    """Write class folders and tables into an empty folder, without images that cannot be decoded.

    Raises:
        UserError: two images would get one path.
    """
    rows: dict[str, Row] = {}
    converted = {
        image.name for image, item in zip(images, scan.measured, strict=True) if item.original
    }
    for image, item in zip(images, scan.measured, strict=True):
        if item.problem:
            continue
        label, split_name = image.class_name, image.split or "train"
        inner = written_name(image.inner, item.format, is_converted=bool(item.original))
        path = f"{split_name}/{label}/{inner}"
        if path.casefold() in rows and inner != image.inner:
            path = f"{split_name}/{label}/{image.inner}{suffix_of(item.format)}"
        content = (item.sha256, item.size_bytes, item.mode, item.width, item.height)
        row = Row(path, *content, label, split_name, image.group, image.name)
        # File systems of macOS and Windows ignore case.
        other = rows.setdefault(row.path.casefold(), row)
        if other is not row:
            raise UserError(
                f"{other.source} and {row.source} would both become {row.path}: rename one"
            )
    for row in tqdm(rows.values(), desc="write", unit=" images", disable=quiet or None):
        target = out / row.path
        target.parent.mkdir(parents=True, exist_ok=True)
        source = folder / row.source
        if row.source in converted:
            target.write_bytes(convert(source.read_bytes()).data)
        else:
            transfer(source, target)
    write_tables(out, list(rows.values()))


def write_tables(out: Path, rows: Sequence[Row]) -> None:
    """Write the manifest, and the class counts of every split."""
    ordered = sorted(rows, key=lambda row: row.path)
    # Renamed when complete: an interruption leaves the earlier manifest.
    partial = out / f".{MANIFEST}.partial"
    partial.write_text("".join(json.dumps(asdict(row)) + "\n" for row in ordered), "utf-8")
    partial.replace(out / MANIFEST)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        counts[row.split][row.label] += 1
    for name, by_class in counts.items():
        with (out / f"info_{name}.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(["class_name", "images", "share"])
            for label, count in sorted(by_class.items()):
                table.writerow([label, count, f"{count / by_class.total():.4f}"])


def read_manifest(folder: Path) -> list[Row] | None:
    """Read a prepared folder's manifest; None if the folder has none.

    Raises:
        UserError: it is damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        return [Row(**json.loads(line)) for line in path.read_text("utf-8").splitlines()]
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged: prepare the data set again") from error
