"""A prepared data set: splits with class folders, a manifest, and class counts."""

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from container.classifier.errors import UserError
from image_classifier.preparation import split
from image_classifier.preparation.duplicates import Indices, connected
from image_classifier.preparation.labels import Labeled
from image_classifier.preparation.quarantine import Transfer
from image_classifier.preparation.scan import Scan

MANIFEST = "manifest.jsonl"
FINDINGS = "findings.jsonl"
PAGE = "report.html"

DEFAULT_SHARE = 0.1


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


def plan_splits(
    images: Sequence[Labeled], scan: Scan, copies: Indices, requested: Mapping[str, float | None]
) -> list[Labeled]:
    """Return images with a split each.

    Existing splits stay as they are. If validation is missing, it is taken from training; test
    only if its share is given.

    Args:
        images: N.
        scan: Of these images.
        copies: (N,): equal numbers for copies of each other, which stay together.
        requested: Shares of `validation` and `test`; None: the default.

    Raises:
        UserError: a share is given for an existing split, or no image is left for a split.
    """
    existing = {image.split for image in images} - {None}
    shares = {}
    for name, share in requested.items():
        if name not in existing:
            is_default = not existing or (name == "validation" and "train" in existing)
            shares[name] = (DEFAULT_SHARE if is_default else 0.0) if share is None else share
        elif share is not None:
            raise UserError(f"the source has a {name} split, which is kept: omit --{name}")
    split.check_shares(shares)
    indices = [index for index, item in enumerate(images) if item.split in {None, "train"}]
    if not any(shares.values()) or not indices:
        return [replace(image, split=image.split or "train") for image in images]
    groups = _groups(images, copies)
    assigned = split.assign(
        [scan.measured[index].sha256 for index in indices],
        [images[index].class_name for index in indices],
        groups[indices].tolist(),
        shares,
    )
    if empty := [name for name, share in shares.items() if share and name not in assigned]:
        raise UserError(
            f"no image is left for {empty[0]}: there are too few images, or nearly all of them "
            "must stay together (copies, --group); give a larger share, or 0"
        )
    found = list(images)
    for index, name in zip(indices, assigned, strict=True):
        found[index] = replace(found[index], split=name)
    return found


def write(
    folder: Path,
    images: Sequence[Labeled],
    scan: Scan,
    out: Path,
    transfer: Transfer,
    *,
    quiet: bool,
) -> None:
    """Write class folders and tables, without images that cannot be decoded.

    Args:
        folder: Contains the images.
        images: With a split each.
        scan: Of these images.
        out: An empty folder.
        transfer: Copies or moves a file.
        quiet: No progress bar.

    Raises:
        UserError: two images would get one path.
    """
    rows: dict[str, Row] = {}
    for image, item in zip(images, scan.measured, strict=True):
        if item.problem:
            continue
        label, split_name = image.class_name, image.split or "train"
        path = f"{split_name}/{label}/{image.inner}"
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
        transfer(folder / row.source, target)
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
        UserError: it is damaged, or names a path outside of the folder.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        rows = [Row(**json.loads(line)) for line in path.read_text("utf-8").splitlines()]
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged: prepare the data set again") from error
    for row in rows:
        inner = PurePosixPath(row.path)
        if inner.is_absolute() or ".." in inner.parts:
            raise UserError(f"{path} names {row.path!r}, which leaves the folder")
    return rows


def _groups(images: Sequence[Labeled], copies: Indices) -> Indices:
    """Return (N,): equal numbers for images that copies or groups connect."""
    pairs = list(enumerate(copies.tolist()))
    firsts: dict[str, int] = {}
    for index, image in enumerate(images):
        if image.group is not None:
            pairs.append((index, firsts.setdefault(image.group, index)))
    return connected(len(images), pairs)
