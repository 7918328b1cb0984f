"""Finds all faults of a labeled data set, and how copies of training images bias the score."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from container.classifier.labeled_images import IMBALANCE, mirrored_classes
from container.classifier.media_types import IMAGE_MEDIA_TYPES
from container.classifier.preprocessing import MIN_IMAGE_SIZE
from container.classifier.split_folders import is_rarely_a_class
from image_classifier.preparation import quality
from image_classifier.preparation.duplicates import Indices, clusters
from image_classifier.preparation.findings import Finding, in_order
from image_classifier.preparation.labels import Labeled, class_names, split_names
from image_classifier.preparation.scan import Measured, Scan
from image_classifier.preparation.suspects import LabelCheck, check_labels

PLAIN_MODES = ("RGB", "L")

# Orientation values that EXIF defines, without 1 for upright.
ROTATED = range(2, 9)

# Limits of the further images and of the names in one finding.
MAX_OTHERS, MAX_LISTED = 20, 5

# Pillow's name of JPEG files that contain several images.
MPO = "MPO"


@dataclass(frozen=True, slots=True)
class Leak:
    """Images of a split that are also in training."""

    split: str
    images: int
    """Number of images in the split."""

    copies: int
    """Those that are in training with the same label."""

    contradicted: int
    """Those that are in training only with another label."""

    @property
    def sentence(self) -> str:
        """The effect on the accuracy; empty if the split has no copies."""
        sentences = []
        if self.copies:
            percent = 100 * self.copies / self.images
            at_90 = 10 * self.copies / max(self.images - self.copies, 1)
            sentences.append(
                f"{self.copies} of {self.images} {self.split} images ({percent:.1f} %) are copies "
                "of training images with the same label, which a network can memorize: the "
                f"accuracy measured on {self.split} may be too high by up to {percent:.1f} points "
                f"(by up to {min(at_90, percent):.2f} if 90 % is measured)."
            )
        if self.contradicted:
            percent = 100 * self.contradicted / self.images
            sentences.append(
                f"{self.contradicted} of {self.images} {self.split} images ({percent:.1f} %) are "
                "copies of training images with another label: the accuracy measured on "
                f"{self.split} may be too low by up to {percent:.1f} points."
            )
        return " ".join(sentences)


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found out about a data set of N images."""

    images: list[Labeled]
    scan: Scan
    earlier: list[Finding]
    """Findings about files that are not among the images."""

    findings: list[Finding]
    """All findings, in order."""

    leaks: list[Leak]
    label_check: LabelCheck

    moved: int = 0
    """Number of bad images that were moved or copied elsewhere, and are not among the images."""

    @property
    def class_names(self) -> list[str]:
        """All classes, sorted."""
        return class_names(self.images)

    @property
    def splits(self) -> list[str]:
        """All splits, the usual ones first; a single one called `all` if the source has none."""
        return split_names(self.images)

    @property
    def counts(self) -> Mapping[str, Counter[str]]:
        """Number of images that can be read, by split and class."""
        return _count_classes(self.images, self.scan)

    def sentences(self) -> list[str]:
        """Describe the effect of copies on the score, and whether labels were checked."""
        found = [leak.sentence for leak in self.leaks if leak.sentence]
        if not found and len(self.splits) > 1:
            found = ["No image of the other splits is a copy of a training image."]
        return [*found, self.label_check.sentence] if self.label_check.sentence else found


def _count_classes(images: Sequence[Labeled], scan: Scan) -> Mapping[str, Counter[str]]:
    counts = {split: Counter[str]() for split in split_names(images)}
    for image, item in zip(images, scan.measured, strict=True):
        if not item.problem:
            counts[image.split or "all"][image.class_name] += 1
    return counts


def find_copies(scan: Scan) -> Indices:
    """Return (N,): equal numbers for images that are the same, exactly or nearly."""
    firsts: dict[str, int] = {}
    # A file that cannot be read is not a copy.
    hashes = [item.sha256 or f"unread {index}" for index, item in enumerate(scan.measured)]
    exact = np.array([firsts.setdefault(key, i) for i, key in enumerate(hashes)], dtype=np.int64)
    near = np.arange(len(exact))
    compared = np.flatnonzero((exact == near) & scan.is_comparable)
    near[compared] = compared[clusters(scan.hashes[compared], scan.thumbnails[compared])]
    found: Indices = near[exact]
    return found


def audit(
    images: list[Labeled], scan: Scan, copies: Indices, earlier: Sequence[Finding] = ()
) -> Audit:
    """Audit images that have their final splits.

    `copies` are those of `find_copies`; `earlier` are findings about files that are not among the
    images.
    """
    found = list(earlier)
    for image, item in zip(images, scan.measured, strict=True):
        found += _audit_one(image, item)
    qualities = [None if i.problem or i.is_constant else i.quality for i in scan.measured]
    found += quality.find([image.name for image in images], qualities)
    found += _audit_copies(images, scan, copies)
    found += _audit_groups(images)
    found += _audit_classes(class_names(images), _count_classes(images, scan))
    indices = np.flatnonzero((copies == np.arange(len(copies))) & scan.is_comparable)
    check = check_labels(images, scan, indices)
    findings, leaks = in_order([*found, *check.findings]), _find_leaks(images, copies)
    return Audit(images, scan, list(earlier), findings, leaks, check)


def _audit_one(image: Labeled, item: Measured) -> Iterator[Finding]:
    name, suffix = image.name, PurePosixPath(image.name).suffix.lower()
    if item.problem:
        yield Finding("truncated" if item.ends_early else "undecodable", name, item.problem)
    if item.original:
        yield Finding("converted", name, f"{item.original}, which becomes {item.format}")
    # Pillow names formats as their media types do, in upper case.
    expected = IMAGE_MEDIA_TYPES.get(suffix, "").removeprefix("image/").upper()
    if (
        item.format
        and expected
        and not item.original
        and item.format.replace(MPO, "JPEG") != expected
    ):
        yield Finding("wrong-extension", name, f"the format is {item.format}, the suffix {suffix}")
    if item.problem:
        return
    if min(item.width, item.height) < MIN_IMAGE_SIZE:
        yield Finding("tiny", name, f"{item.width} x {item.height} pixels")
    if item.is_constant:
        yield Finding("constant", name, f"one color everywhere, brightness {item.brightness:.0f}")
    elif item.is_gray and item.mode != "L":
        yield Finding("gray-as-rgb", name, f"stored as {item.mode}, every pixel is gray")
    if item.mode not in PLAIN_MODES:
        yield Finding("odd-mode", name, f"stored as {item.mode}")
    if item.orientation in ROTATED:
        yield Finding("exif-rotated", name, f"EXIF orientation {item.orientation}")


def _audit_copies(images: Sequence[Labeled], scan: Scan, copies: Indices) -> Iterator[Finding]:
    exact: dict[str, list[int]] = defaultdict(list)
    near: dict[int, list[int]] = defaultdict(list)
    for index, item in enumerate(scan.measured):
        if item.sha256:
            exact[item.sha256].append(index)
            near[int(copies[index])].append(index)
    for indices in exact.values():
        if len(indices) > 1:
            yield from _audit_copy_group(
                "exact-copy", "the same file", [images[i] for i in indices]
            )
    for indices in near.values():
        if len({scan.measured[index].sha256 for index in indices}) > 1:
            text = "the same image, re-encoded or resized"
            yield from _audit_copy_group("near-copy", text, [images[index] for index in indices])


def _audit_copy_group(kind: str, text: str, images: Sequence[Labeled]) -> Iterator[Finding]:
    text = f"{text}, {len(images)} times"
    others = [image.name for image in images[1:]]
    if len(split_names(images)) == len(class_names(images)) == 1:
        yield Finding(kind, images[0].name, text, tuple(others))
    yield from _audit_group(kind, text, images, others)


def _audit_groups(images: Sequence[Labeled]) -> Iterator[Finding]:
    groups: dict[str, list[Labeled]] = defaultdict(list)
    for image in images:
        if image.group is not None:
            groups[image.group].append(image)
    for group, members in groups.items():
        others = [image.name for image in members[1 : MAX_OTHERS + 1]]
        text = f"group {group}: {len(members)} images"
        yield from _audit_group("group", text, members, others)


def _audit_group(
    kind: str, text: str, images: Sequence[Labeled], others: Sequence[str]
) -> Iterator[Finding]:
    """Check that images that belong together have one split and one class."""
    for suffix, word, names in (
        ("across-splits", "in", split_names(images)),
        ("with-two-labels", "as", class_names(images)),
    ):
        if len(names) > 1:
            detail = f"{text}, {word} {_join(names)}"
            yield Finding(f"{kind}-{suffix}", images[0].name, detail, tuple(others))


def _audit_classes(
    names: Sequence[str], counts_by_split: Mapping[str, Counter[str]]
) -> Iterator[Finding]:
    for split, counts in counts_by_split.items():
        largest = max(names, key=counts.__getitem__)
        most = counts[largest]
        for name in names:
            if not counts[name]:
                yield Finding("class-missing", None, f"{split} has no image of class {name}")
            elif most >= IMBALANCE * counts[name]:
                text = (
                    f"{split} has {counts[name]} images of class {name} and {most} of {largest}: "
                    "use the balanced accuracy and the hyperparameter class_balance"
                )
                yield Finding("imbalance", None, text)
    for name in filter(is_rarely_a_class, names):
        text = f"the folder {name} is a class: move it out of the source if it holds leftovers"
        yield Finding("unusual-class", None, text)
    by_folded: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_folded[" ".join(name.casefold().split())].append(name)
    for same in by_folded.values():
        if len(same) > 1:
            text = (
                f"the classes {', '.join(map(repr, same))} are different ones: rename all but one"
            )
            yield Finding("similar-classes", None, text)
    for left, right in mirrored_classes(names):
        text = f"classes {left} and {right} differ by left and right: leave horizontal_flip off"
        yield Finding("mirrored-classes", None, text)


def _find_leaks(images: Sequence[Labeled], copies: Indices) -> list[Leak]:
    """Compare every split with training."""
    trained: dict[int, set[str]] = defaultdict(set)
    held_out: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for image, cluster in zip(images, copies.tolist(), strict=True):
        if image.split == "train":
            trained[cluster].add(image.class_name)
        elif image.split is not None:
            held_out[image.split].append((cluster, image.class_name))
    leaks = []
    for split in split_names(images):
        if members := held_out.get(split):
            leaked = [name in trained[cluster] for cluster, name in members if cluster in trained]
            leaks.append(Leak(split, len(members), sum(leaked), len(leaked) - sum(leaked)))
    return leaks


def _join(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + more
