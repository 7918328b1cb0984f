"""All that is wrong with a labeled data set, and what copies do to the score."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from container.classifier.mirrored_classes import mirrored_classes
from image_classifier.preparation.duplicates import clusters
from image_classifier.preparation.findings import Finding, in_order
from image_classifier.preparation.labels import Labeled, split_names
from image_classifier.preparation.leaks import Leak, leaks_of
from image_classifier.preparation.scan import Measured, Scan
from image_classifier.preparation.suspects import opinion_of

# A network's input has at least as many pixels.
TINY_SIDE = 16

# Where training begins to balance the classes.
IMBALANCE = 3.0

PLAIN_MODES = ("RGB", "L")

# Of other images that one finding names.
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
    """What is known of a data set of N images."""

    images: list[Labeled]
    scan: Scan
    copies: npt.NDArray[np.int64]
    """(N,): equal numbers for images that are the same, exactly or nearly."""

    earlier: list[Finding]
    """Findings about what is not among the images."""

    findings: list[Finding]
    """All of them, in order."""

    leaks: list[Leak]
    neighbor_accuracy: float
    """How many images their nearest neighbors name correctly, as a share."""

    @property
    def class_names(self) -> list[str]:
        """All classes, sorted."""
        return sorted({image.class_name for image in self.images})

    @property
    def splits(self) -> list[str]:
        """All splits, the usual ones first; one that is called `all` where there are none."""
        return split_names(self.images)

    def sentences(self) -> list[str]:
        """Say what copies do to the score, and what the neighbors are worth."""
        said = [leak.sentence for leak in self.leaks if leak.sentence]
        if not said and len(self.splits) > 1:
            said = ["No image of the other splits is a copy of a training image."]
        return said


def copies_of(scan: Scan) -> npt.NDArray[np.int64]:
    """Return (N,): equal numbers for images that are the same, exactly or nearly."""
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
    images: list[Labeled],
    scan: Scan,
    copies: npt.NDArray[np.int64],
    earlier: Sequence[Finding] = (),
) -> Audit:
    """Judge N images, their splits being what they will be.

    Args:
        images: N.
        scan: Of these images.
        copies: Of `copies_of`.
        earlier: Findings about what is not among the images.
    """
    found = list(earlier)
    for image, item in zip(images, scan.measured, strict=True):
        found += _of_one(image, item)
    found += _copies(images, scan, copies)
    found += _groups(images)
    found += _classes(images)
    accuracy, suspects = _suspects(images, scan, copies)
    return Audit(
        images=images,
        scan=scan,
        copies=copies,
        earlier=list(earlier),
        findings=in_order([*found, *suspects]),
        leaks=leaks_of(images, copies),
        neighbor_accuracy=accuracy,
    )


def _of_one(image: Labeled, item: Measured) -> Iterator[Finding]:
    """Judge an image by itself."""
    name, suffix = image.name, PurePosixPath(image.name).suffix.lower()
    if item.problem:
        yield Finding("truncated" if item.ends_early else "undecodable", name, item.problem)
    if item.format and suffix not in SUFFIXES[item.format]:
        yield Finding("wrong-extension", name, f"it is {item.format}, its name ends with {suffix}")
    if item.problem:
        return
    if min(item.width, item.height) < TINY_SIDE:
        yield Finding("tiny", name, f"{item.width} x {item.height} pixels")
    if item.is_constant:
        yield Finding("constant", name, f"one color everywhere, brightness {item.brightness:.0f}")
    elif item.is_gray and item.mode != "L":
        yield Finding("gray-as-rgb", name, f"stored as {item.mode}, every pixel is gray")
    if item.mode not in PLAIN_MODES:
        yield Finding("odd-mode", name, f"stored as {item.mode}")
    if 1 < item.orientation <= 8:  # noqa: PLR2004 - EXIF's eight
        yield Finding("exif-rotated", name, f"EXIF orientation {item.orientation}")


def _copies(
    images: Sequence[Labeled], scan: Scan, copies: npt.NDArray[np.int64]
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
                yield from _copies_of_one(kind, [images[place] for place in places])


def _copies_of_one(kind: str, same: Sequence[Labeled]) -> Iterator[Finding]:
    """Judge images that are the same one."""
    words = {"exact": "the same file", "near": "the same image, re-encoded or resized"}[kind]
    splits, classes = split_names(same), sorted({image.class_name for image in same})
    first, *others = [image.name for image in same]
    times = f"{words}, {len(same)} times"
    if len(splits) > 1:
        text = f"{times}, in {_listed(splits)}"
        yield Finding(f"{kind}-copy-across-splits", first, text, tuple(others))
    if len(classes) > 1:
        text = f"{times}, as {_listed(classes)}"
        yield Finding(f"{kind}-copy-with-two-labels", first, text, tuple(others))
    if len(splits) == len(classes) == 1:
        yield Finding(f"{kind}-copy", first, times, tuple(others))


def _groups(images: Sequence[Labeled]) -> Iterator[Finding]:
    groups: dict[str, list[Labeled]] = defaultdict(list)
    for image in images:
        if image.group is not None:
            groups[image.group].append(image)
    for group, members in groups.items():
        splits, classes = split_names(members), sorted({item.class_name for item in members})
        first, *others = [image.name for image in members]
        about = tuple(others[:MAX_OTHERS])
        if len(splits) > 1:
            text = f"group {group}: {len(members)} images, in {_listed(splits)}"
            yield Finding("group-across-splits", first, text, about)
        if len(classes) > 1:
            text = f"group {group}: {len(members)} images, as {_listed(classes)}"
            yield Finding("group-with-two-labels", first, text, about)


def _classes(images: Sequence[Labeled]) -> Iterator[Finding]:
    by_split: dict[str, Counter[str]] = defaultdict(Counter)
    for image in images:
        by_split[image.split or "all"][image.class_name] += 1
    names = sorted({image.class_name for image in images})
    for split in split_names(images):
        counts = by_split[split]
        largest, most = counts.most_common(1)[0]
        for name in names:
            if not counts[name]:
                text = f"{split} has no image of class {name}"
                yield Finding("class-missing", None, text)
            elif most > IMBALANCE * counts[name]:
                text = (
                    f"{split} has {counts[name]} images of class {name} and {most} of {largest}: "
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
    images: Sequence[Labeled], scan: Scan, copies: npt.NDArray[np.int64]
) -> tuple[float, list[Finding]]:
    names = sorted({image.class_name for image in images})
    number = {name: place for place, name in enumerate(names)}
    labels = np.array([number[image.class_name] for image in images], dtype=np.int64)
    plain = np.array([not (item.problem or item.is_constant) for item in scan.measured], dtype=bool)
    places = np.flatnonzero((copies == np.arange(len(copies))) & plain)
    opinion = opinion_of(scan.thumbnails[places], labels[places])
    findings = []
    for place, (label, votes) in opinion.suspects.items():
        image = images[int(places[place])]
        text = f"labeled {image.class_name}; {votes} of its 10 most similar are {names[label]}"
        findings.append(Finding("label-suspect", image.name, text))
    return opinion.accuracy, findings


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"  # noqa: PLR2004
