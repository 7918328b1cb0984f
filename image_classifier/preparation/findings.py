"""What can be wrong with a data set: the kinds, and the file that programs read."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path


class Severity(StrEnum):
    """How bad a finding is."""

    FAULT = "fault"
    """The data set is not to be trusted as it is: `audit` exits with 1."""

    WARNING = "warning"
    """Something to look at before training."""

    NOTE = "note"
    """Read correctly; good to know."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of finding."""

    severity: Severity

    meaning: str

    is_moved: bool = False
    """Whether `--fix` moves such images aside."""


KINDS: Mapping[str, Kind] = {
    "undecodable": Kind(
        Severity.FAULT,
        "no image of a known format, damaged, or above 50 megapixels",
        is_moved=True,
    ),
    "truncated": Kind(Severity.FAULT, "the file ends before the image does", is_moved=True),
    "missing-file": Kind(Severity.FAULT, "a manifest names a file that is not there"),
    "exact-copy-across-splits": Kind(
        Severity.FAULT, "the same file in several splits", is_moved=True
    ),
    "exact-copy-with-two-labels": Kind(
        Severity.FAULT, "the same file in several classes: one label is wrong", is_moved=True
    ),
    "near-copy-across-splits": Kind(
        Severity.FAULT, "the same image, re-encoded or resized, in several splits"
    ),
    "near-copy-with-two-labels": Kind(
        Severity.FAULT, "the same image, re-encoded or resized, in several classes"
    ),
    "group-across-splits": Kind(
        Severity.FAULT, "what belongs together (`--group`) lies in several splits"
    ),
    "exact-copy": Kind(
        Severity.WARNING, "the same file again, in the same class and split", is_moved=True
    ),
    "near-copy": Kind(
        Severity.WARNING, "the same image, re-encoded or resized, in the same class and split"
    ),
    "group-with-two-labels": Kind(
        Severity.WARNING, "what belongs together (`--group`) has several labels"
    ),
    "constant": Kind(Severity.WARNING, "one color everywhere", is_moved=True),
    "tiny": Kind(Severity.WARNING, "a side of less than 16 pixels", is_moved=True),
    "wrong-extension": Kind(Severity.WARNING, "the name says another format than the content"),
    "unsupported": Kind(
        Severity.WARNING, "a format that the training program does not read: left out"
    ),
    "unlabeled": Kind(
        Severity.WARNING, "the pattern or the manifest has no label for it: left out"
    ),
    "no-file": Kind(Severity.WARNING, "a link to nothing, a pipe or a device: left out"),
    "link": Kind(Severity.WARNING, "a link to a folder, which is not followed: left out"),
    "label-suspect": Kind(
        Severity.WARNING, "the images that look most like it are of one other class"
    ),
    "imbalance": Kind(
        Severity.WARNING, "a class of a split has under a third of the largest one's images"
    ),
    "class-missing": Kind(Severity.WARNING, "a split has no image of a class"),
    "mirrored-classes": Kind(
        Severity.WARNING, "two classes tell left from right: mirroring destroys the labels"
    ),
    "odd-mode": Kind(
        Severity.NOTE, "palette, CMYK, alpha, 1 or 16 bits: read as docs/images.md says"
    ),
    "exif-rotated": Kind(
        Severity.NOTE, "stored turned or mirrored; EXIF says so, and it is read upright"
    ),
    "gray-as-rgb": Kind(Severity.NOTE, "stored in color, and has none"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, in words and for programs."""

    kind: str

    path: str | None
    """Of the image, in its source; None for what concerns the whole data set."""

    detail: str

    others: tuple[str, ...] = ()
    """Further images that it concerns."""

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return KINDS[self.kind].severity


def write(findings: Iterable[Finding], path: Path) -> None:
    """Write JSON Lines, one finding each."""
    lines = (json.dumps({"severity": item.severity, **asdict(item)}) + "\n" for item in findings)
    path.write_text("".join(lines), encoding="utf-8")


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings in the order of their kinds, the worst first, then of their paths."""
    place = {kind: number for number, kind in enumerate(KINDS)}
    return sorted(findings, key=lambda item: (place[item.kind], item.path or ""))


def has_fault(findings: Iterable[Finding]) -> bool:
    """Tell whether one is a fault."""
    return any(item.severity == Severity.FAULT for item in findings)


def summary(findings: Sequence[Finding]) -> list[str]:
    """Return a line a kind: how bad, how many, what, and the first one in words."""
    counts = Counter(item.kind for item in findings)
    lines = []
    for kind, about in KINDS.items():
        if count := counts[kind]:
            first = next(item for item in findings if item.kind == kind)
            place = f"{first.path}: " if first.path else ""
            lines.append(f"{about.severity:8}{count:6}  {kind}: {place}{first.detail}")
    return lines
