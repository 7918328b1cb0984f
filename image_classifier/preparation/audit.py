"""All that is wrong with a labelled data set, and what copies do to the score."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from container.training.data.mirrored_classes import mirrored_classes
from image_classifier.preparation.duplicates import clusters
from image_classifier.preparation.findings import Finding, in_order
from image_classifier.preparation.labels import Labelled, split_names
from image_classifier.preparation.leaks import Leak, leaks_of
from image_classifier.preparation.scan import Measured, Scan
from image_classifier.preparation.suspects import opinion_of

# A network's input has at least as many pixels.
TINY_SIDE = 16

# Where training begins to balance the classes.
IMBALANCE = 3.0

PLAIN_MODES = ("RGB", "L")

# Of other pictures that one finding names.
MAX_OTHERS = 20

SUFFIXES = {
    "JPEG": (".jpg", ".jpeg"),
    "MPO": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
}


@dataclass(frozen=True, slots=True)
class Audit:
    """What is known of a data set of N pictures."""

    pictures: list[Labelled]
    scan: Scan
    copies: npt.NDArray[np.int64]
    """(N,): equal numbers for pictures that are the same, exactly or nearly."""

    earlier: list[Finding]
    """Findings about what is not among the pictures."""

    findings: list[Finding]
    """All of them, in order."""

    leaks: list[Leak]
    neighbour_accuracy: float
    """How many pictures their nearest neighbours name rightly, as a share."""

    @property
    def class_names(self) -> list[str]:
        """All classes, sorted."""
        return sorted({picture.class_name for picture in self.pictures})

    @property
    def splits(self) -> list[str]:
        """All splits, the usual ones first; one that is called `all` where there are none."""
        return split_names(self.pictures)

    def sentences(self) -> list[str]:
        """Say what copies do to the score, and what the neighbours are worth."""
        said = [leak.sentence for leak in self.leaks if leak.sentence]
        if not said and len(self.splits) > 1:
            said = ["No picture of the other splits is a copy of a training picture."]
        return said


def copies_of(scan: Scan) -> npt.NDArray[np.int64]:
    """Return (N,): equal numbers for pictures that are the same, exactly or nearly."""
    firsts: dict[str, int] = {}
    exact = np.array(
        [
            # What has no content is nobody's copy.
            firsts.setdefault(item.sha256 or f"unread {place}", place)
            for place, item in enumerate(scan.measured)
        ],
        dtype=np.int64,
    )
    plain = np.array([not (item.problem or item.is_constant) for item in scan.measured], dtype=bool)
    compared = np.flatnonzero((exact == np.arange(len(exact))) & plain)
    near = np.arange(len(exact))
    if len(compared):
        near[compared] = compared[clusters(scan.hashes[compared], scan.thumbnails[compared])]
    found: npt.NDArray[np.int64] = near[exact]
    return found


def audit(
    pictures: list[Labelled],
    scan: Scan,
    copies: npt.NDArray[np.int64],
    earlier: Sequence[Finding] = (),
) -> Audit:
    """Judge N pictures, their splits being what they will be.

    Args:
        pictures: N.
        scan: Of these pictures.
        copies: Of `copies_of`.
        earlier: Findings about what is not among the pictures.
    """
    found = list(earlier)
    for picture, item in zip(pictures, scan.measured, strict=True):
        found += _of_one(picture, item)
    found += _copies(pictures, scan, copies)
    found += _groups(pictures)
    found += _classes(pictures)
    accuracy, suspects = _suspects(pictures, scan, copies)
    return Audit(
        pictures=pictures,
        scan=scan,
        copies=copies,
        earlier=list(earlier),
        findings=in_order([*found, *suspects]),
        leaks=leaks_of(pictures, copies),
        neighbour_accuracy=accuracy,
    )


def _of_one(picture: Labelled, item: Measured) -> Iterator[Finding]:
    """Judge a picture by itself."""
    name, suffix = picture.name, PurePosixPath(picture.name).suffix.lower()
    if item.problem:
        yield Finding("truncated" if item.ends_early else "undecodable", name, item.problem)
    if item.format and suffix not in SUFFIXES[item.format]:
        yield Finding("wrong-extension", name, f"it is {item.format}, its name ends with {suffix}")
    if item.problem:
        return
    if min(item.width, item.height) < TINY_SIDE:
        yield Finding("tiny", name, f"{item.width} x {item.height} pixels")
    if item.is_constant:
        yield Finding("constant", name, f"one colour everywhere, brightness {item.brightness:.0f}")
    elif item.is_grey and item.mode != "L":
        yield Finding("grey-as-rgb", name, f"stored as {item.mode}, every pixel is grey")
    if item.mode not in PLAIN_MODES:
        yield Finding("odd-mode", name, f"stored as {item.mode}")
    if 1 < item.orientation <= 8:  # noqa: PLR2004 - EXIF's eight
        yield Finding("exif-rotated", name, f"EXIF orientation {item.orientation}")


def _copies(
    pictures: Sequence[Labelled], scan: Scan, copies: npt.NDArray[np.int64]
) -> Iterator[Finding]:
    exact: dict[str, list[int]] = defaultdict(list)
    near: dict[int, list[int]] = defaultdict(list)
    for place, item in enumerate(scan.measured):
        if item.sha256:
            exact[item.sha256].append(place)
            near[int(copies[place])].append(place)
    for kind, groups in (("exact", exact.values()), ("near", near.values())):
        for places in groups:
            contents = {scan.measured[place].sha256 for place in places}
            if len(places) > 1 and (kind == "exact" or len(contents) > 1):
                yield from _copies_of_one(kind, [pictures[place] for place in places])


def _copies_of_one(kind: str, same: Sequence[Labelled]) -> Iterator[Finding]:
    """Judge pictures that are the same one."""
    words = {"exact": "the same file", "near": "the same picture, re-encoded or resized"}[kind]
    splits, classes = split_names(same), sorted({picture.class_name for picture in same})
    first, *others = [picture.name for picture in same]
    times = f"{words}, {len(same)} times"
    if len(splits) > 1:
        text = f"{times}, in {_listed(splits)}"
        yield Finding(f"{kind}-copy-across-splits", first, text, tuple(others))
    if len(classes) > 1:
        text = f"{times}, as {_listed(classes)}"
        yield Finding(f"{kind}-copy-with-two-labels", first, text, tuple(others))
    if len(splits) == len(classes) == 1:
        yield Finding(f"{kind}-copy", first, times, tuple(others))


def _groups(pictures: Sequence[Labelled]) -> Iterator[Finding]:
    groups: dict[str, list[Labelled]] = defaultdict(list)
    for picture in pictures:
        if picture.group is not None:
            groups[picture.group].append(picture)
    for group, members in groups.items():
        splits, classes = split_names(members), sorted({item.class_name for item in members})
        first, *others = [picture.name for picture in members]
        about = tuple(others[:MAX_OTHERS])
        if len(splits) > 1:
            text = f"group {group}: {len(members)} pictures, in {_listed(splits)}"
            yield Finding("group-across-splits", first, text, about)
        if len(classes) > 1:
            text = f"group {group}: {len(members)} pictures, as {_listed(classes)}"
            yield Finding("group-with-two-labels", first, text, about)


def _classes(pictures: Sequence[Labelled]) -> Iterator[Finding]:
    by_split: dict[str, Counter[str]] = defaultdict(Counter)
    for picture in pictures:
        by_split[picture.split or "all"][picture.class_name] += 1
    names = sorted({picture.class_name for picture in pictures})
    for split in split_names(pictures):
        counts = by_split[split]
        largest, most = counts.most_common(1)[0]
        for name in names:
            if not counts[name]:
                text = f"{split} has no picture of class {name}"
                yield Finding("class-missing", None, text)
            elif most > IMBALANCE * counts[name]:
                text = (
                    f"{split} has {counts[name]} pictures of class {name} and {most} of {largest}: "
                    "judge by balanced accuracy, and see class_balance"
                )
                yield Finding("imbalance", None, text)
    for left, right in mirrored_classes(names):
        text = (
            f"classes {left} and {right} tell left from right: horizontal_flip would destroy the "
            "labels, leave it off"
        )
        yield Finding("mirrored-classes", None, text)


def _suspects(
    pictures: Sequence[Labelled], scan: Scan, copies: npt.NDArray[np.int64]
) -> tuple[float, list[Finding]]:
    names = sorted({picture.class_name for picture in pictures})
    number = {name: place for place, name in enumerate(names)}
    labels = np.array([number[picture.class_name] for picture in pictures], dtype=np.int64)
    plain = np.array([not (item.problem or item.is_constant) for item in scan.measured], dtype=bool)
    places = np.flatnonzero((copies == np.arange(len(copies))) & plain)
    opinion = opinion_of(scan.thumbnails[places], labels[places])
    findings = []
    for place, (label, votes) in opinion.suspects.items():
        picture = pictures[int(places[place])]
        text = f"labelled {picture.class_name}; {votes} of its 10 most similar are {names[label]}"
        findings.append(Finding("label-suspect", picture.name, text))
    return opinion.accuracy, findings


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"  # noqa: PLR2004
