"""A prepared data set: class folders in splits, what they hold in tables, and how it came to be."""

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from container.classifier.errors import UserError
from image_classifier.preparation import split
from image_classifier.preparation.duplicates import connected
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
    """What the image was called where it comes from."""


def planned(
    images: Sequence[Labeled],
    scan: Scan,
    copies: npt.NDArray[np.int64],
    wanted: Mapping[str, float | None],
) -> list[Labeled]:
    """Give a split to every image that has none.

    Ready splits stay as they are. Where validation is missing it is taken from training; a test
    split is so only when its share is given.

    Args:
        images: N.
        scan: Of these.
        copies: (N,): equal numbers for copies of each other, which stay together.
        wanted: Shares of `validation` and `test`; None: the usual.

    Raises:
        UserError: a share is given for a split that is there, or nothing is left for one.
    """
    ready = {image.split for image in images} - {None}
    if taken := [name for name, share in wanted.items() if share is not None and name in ready]:
        message = f"the source has a {taken[0]} split, which is kept: leave its share out"
        raise UserError(message)
    shares = {
        name: _default(name, ready) if share is None else share
        for name, share in wanted.items()
        if name not in ready
    }
    split.check_shares(shares)
    places = [place for place, item in enumerate(images) if item.split in {None, "train"}]
    if not any(shares.values()) or not places:
        return list(images)
    together = _together(images, copies)
    chosen = split.assign(
        [scan.measured[place].sha256 for place in places],
        [images[place].class_name for place in places],
        [int(together[place]) for place in places],
        shares,
    )
    if empty := [name for name, share in shares.items() if share and name not in chosen]:
        message = (
            f"nothing is left for {empty[0]}: there are too few images, or what must stay "
            "together (copies, --group) is nearly all of them; give a larger share, or 0"
        )
        raise UserError(message)
    found = list(images)
    for place, name in zip(places, chosen, strict=True):
        found[place] = replace(found[place], split=name)
    return found


def write(
    folder: Path,
    images: Sequence[Labeled],
    scan: Scan,
    out: Path,
    transfer: Transfer,
    *,
    quiet: bool = False,
) -> list[Row]:
    """Write class folders and tables.

    Args:
        folder: Where the images lie.
        images: With a split each.
        scan: Of these.
        out: An empty folder.
        transfer: Copies or moves a file.
        quiet: No progress bar.

    Raises:
        UserError: two images would get one path.
    """
    rows = [
        Row(
            path=f"{image.split}/{image.class_name}/{image.inner}",
            sha256=item.sha256,
            size_bytes=item.size_bytes,
            mode=item.mode,
            width=item.width,
            height=item.height,
            label=image.class_name,
            split=image.split or "",
            group=image.group,
            source=image.name,
        )
        for image, item in zip(images, scan.measured, strict=True)
    ]
    by_path: dict[str, Row] = {}
    for row in rows:
        # Macs and Windows take names for one that differ in case alone.
        other = by_path.setdefault(row.path.casefold(), row)
        if other is not row:
            message = f"{other.source} and {row.source} would both be {row.path}: rename one"
            raise UserError(message)
    for row in tqdm(rows, desc="write", unit=" images", disable=quiet or None):
        target = out / row.path
        target.parent.mkdir(parents=True, exist_ok=True)
        transfer(folder / row.source, target)
    write_tables(out, rows)
    return rows


def write_tables(out: Path, rows: Sequence[Row]) -> None:
    """Write the manifest, and the class counts of every split."""
    ordered = sorted(rows, key=lambda row: row.path)
    _replace(out / MANIFEST, "".join(json.dumps(asdict(row)) + "\n" for row in ordered))
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        counts[row.split][row.label] += 1
    for name, by_class in counts.items():
        total = by_class.total()
        with (out / f"info_{name}.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(["class_name", "images", "share"])
            table.writerows(
                [label, count, f"{count / total:.4f}"] for label, count in sorted(by_class.items())
            )


def read_manifest(folder: Path) -> list[Row] | None:
    """Read a prepared folder's manifest; None where it is no prepared one.

    Raises:
        UserError: it is damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        rows = [Row(**json.loads(line)) for line in path.read_text("utf-8").splitlines()]
    except (ValueError, TypeError) as error:
        message = f"{path} is damaged: prepare the data set again"
        raise UserError(message) from error
    for row in rows:
        inner = PurePosixPath(row.path)
        if inner.is_absolute() or ".." in inner.parts:
            message = f"{path} names {row.path!r}, which leaves the folder"
            raise UserError(message)
    return rows


def _default(name: str, ready: set[str | None]) -> float:
    """Return the usual share: none of a ready training split for a test."""
    is_taken = "train" in ready if name == "validation" else False
    return DEFAULT_SHARE if is_taken or not ready else 0.0


def _together(images: Sequence[Labeled], copies: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return (N,): equal numbers for copies of each other, for a group, and for both in turn."""
    pairs = list(enumerate(copies.tolist()))
    firsts: dict[str, int] = {}
    for index, image in enumerate(images):
        if image.group is not None:
            pairs.append((index, firsts.setdefault(image.group, index)))
    return connected(len(images), pairs)


def _replace(path: Path, text: str) -> None:
    """Write a file as a whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
