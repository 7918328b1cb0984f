"""The kinds of findings about a data set, and the file that programs read."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

# Severities: a data set with a fault must not be used as it is, a warning is worth a check before
# training, and images with a note are read correctly.
FAULT, WARNING, NOTE = "fault", "warning", "note"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of finding."""

    severity: str
    meaning: str
    is_moved: bool = False
    """Whether `--fix` moves such images to its folder."""


KINDS: Mapping[str, Kind] = {
    "undecodable": Kind(
        FAULT, "unknown image format, damaged, or too large to decode", is_moved=True
    ),
    "truncated": Kind(FAULT, "the file ends before the image does", is_moved=True),
    "missing-file": Kind(FAULT, "a manifest names a file that does not exist"),
    "ambiguous-file": Kind(FAULT, "a manifest names a file by a name that several files have"),
    "other-case": Kind(FAULT, "a manifest names a file in other upper and lower case"),
    "exact-copy-across-splits": Kind(FAULT, "the same file in several splits", is_moved=True),
    "exact-copy-with-two-labels": Kind(
        FAULT, "the same file in several classes: one label is wrong", is_moved=True
    ),
    "near-copy-across-splits": Kind(
        FAULT, "the same image, re-encoded or resized, in several splits"
    ),
    "near-copy-with-two-labels": Kind(
        FAULT, "the same image, re-encoded or resized, in several classes"
    ),
    "group-across-splits": Kind(FAULT, "images of one group (`--group`) in several splits"),
    "exact-copy": Kind(WARNING, "the same file again, in the same class and split", is_moved=True),
    "near-copy": Kind(
        WARNING, "the same image, re-encoded or resized, in the same class and split"
    ),
    "group-with-two-labels": Kind(WARNING, "images of one group (`--group`) with several labels"),
    "constant": Kind(WARNING, "one color everywhere", is_moved=True),
    "tiny": Kind(WARNING, "a side of less than 16 pixels", is_moved=True),
    "dark": Kind(WARNING, "99 % of the pixels are darker than a third of the maximum"),
    "bright": Kind(WARNING, "95 % of the pixels are nearly white"),
    "low-information": Kind(WARNING, "few different colors: hardly any content"),
    "blurry": Kind(WARNING, "no sharp edges, even in a copy of 64 pixels"),
    "odd-aspect-ratio": Kind(WARNING, "one side is less than 0.35 of the other"),
    "odd-size": Kind(WARNING, "much larger or smaller than the other images"),
    "wrong-extension": Kind(WARNING, "the file's suffix does not match its format"),
    "unsupported": Kind(WARNING, "a format that the training program does not read: left out"),
    "unlabeled": Kind(WARNING, "no label by the pattern or the manifest: left out"),
    "unknown": Kind(WARNING, "a file of an unknown format: left out"),
    "archive": Kind(WARNING, "an archive in the source, which is not unpacked: left out"),
    "no-file": Kind(WARNING, "a broken link, a pipe or a device: left out"),
    "link": Kind(WARNING, "a link to a folder, which is not followed: left out"),
    "label-suspect": Kind(
        WARNING, "the label is probably wrong: a model of the other images predicts another"
    ),
    "outlier": Kind(WARNING, "unlike all other images"),
    "imbalance": Kind(
        WARNING, "a class has less than a third of the images of the split's largest class"
    ),
    "class-missing": Kind(WARNING, "a split has no image of a class"),
    "similar-classes": Kind(
        WARNING, "names of classes that differ only in upper and lower case or in spaces"
    ),
    "unusual-class": Kind(
        WARNING, "a class called `extra`, `misc`, `other` or similar can be a folder of leftovers"
    ),
    "mirrored-classes": Kind(
        WARNING, "two classes differ by left and right: horizontal flips corrupt the labels"
    ),
    "other-file": Kind(NOTE, "a text, a table or another file that is not an image: not used"),
    "unused-column": Kind(
        NOTE, "a manifest's column has a usual name for splits, but its values are not splits"
    ),
    "converted": Kind(NOTE, "PPM or JPEG 2000, which `prepare` converts to PNG"),
    "odd-mode": Kind(NOTE, "palette, CMYK, alpha, 1 or 16 bits: see docs/reference/images.md"),
    "exif-rotated": Kind(NOTE, "stored rotated or mirrored: read upright by its EXIF orientation"),
    "gray-as-rgb": Kind(NOTE, "a gray image stored with color channels"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding, for people and for programs."""

    kind: str

    path: str | None
    """The image's path in its source; None if the finding concerns the whole data set."""

    detail: str

    others: tuple[str, ...] = ()
    """Further images that the finding concerns."""

    @property
    def severity(self) -> str:
        """How severe the finding is."""
        return KINDS[self.kind].severity

    def document(self) -> dict[str, object]:
        """Return the finding for programs."""
        return {"severity": self.severity, **asdict(self)}


def write(findings: Iterable[Finding], path: Path) -> None:
    """Write JSON Lines, one finding each."""
    lines = (json.dumps(item.document()) + "\n" for item in findings)
    path.write_text("".join(lines), encoding="utf-8")


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings in the order of their kinds, the most severe first, then of their paths."""
    order = list(KINDS)
    return sorted(findings, key=lambda item: (order.index(item.kind), item.path or ""))


def summary(findings: Sequence[Finding]) -> list[str]:
    """Return one line per kind: its severity, its count, and its first finding."""
    counts = Counter(item.kind for item in findings)
    lines = []
    for name, kind in KINDS.items():
        if name in counts:
            first = next(item for item in findings if item.kind == name)
            path = f"{first.path}: " if first.path else ""
            lines.append(f"{kind.severity:8}{counts[name]:6}  {name}: {path}{first.detail}")
    return lines
