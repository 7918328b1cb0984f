"""Assigns images to training, validation and test by their content."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

from container.classifier.errors import UserError
from image_classifier.preparation.duplicates import Indices, connected
from image_classifier.preparation.labels import Labeled
from image_classifier.preparation.scan import Scan

DEFAULT_SHARE = 0.1


def plan_splits(
    images: Sequence[Labeled], scan: Scan, copies: Indices, requested: Mapping[str, float | None]
) -> list[Labeled]:
    """Return the images, each with its split.

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
    check_shares(shares)
    indices = [index for index, item in enumerate(images) if item.split in {None, "train"}]
    if not any(shares.values()) or not indices:
        return [replace(image, split=image.split or "train") for image in images]
    groups = _groups(images, copies)
    assigned = assign(
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


def check_shares(shares: Mapping[str, float]) -> None:
    """Check that the shares leave images for training.

    Raises:
        UserError: a share is negative, or their sum is not below 1.
    """
    if any(share < 0 for share in shares.values()) or sum(shares.values()) >= 1:
        found = ", ".join(f"{name} {share:g}" for name, share in shares.items())
        raise UserError(f"the shares {found} leave nothing for training: their sum must be below 1")


def assign(
    sha256s: Sequence[str],
    class_names: Sequence[str],
    groups: Sequence[Hashable],
    shares: Mapping[str, float],
) -> list[str]:
    """Assign N images to `train` and to the splits of `shares`.

    Each class is sorted by content hash; its first images fill the first split, the next ones the
    second, and the rest is for training. The splits depend on neither names nor order of the
    images, and a few new images move few old ones.

    Args:
        sha256s: N content hashes.
        class_names: N.
        groups: N; images of one group stay together and count as images of the group's most
            frequent class. A group goes to training if a split would exceed its share by more
            than half the group.
        shares: By the names of the splits other than `train`.
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    by_class: dict[str, list[tuple[str, list[int]]]] = defaultdict(list)
    for indices in members.values():
        counts = Counter(class_names[index] for index in indices)
        most_frequent = min(counts, key=lambda name: (-counts[name], name))
        contents = "".join(sorted(sha256s[index] for index in indices))
        digest = hashlib.sha256(contents.encode()).hexdigest()
        by_class[most_frequent].append((digest, indices))
    splits = ["train"] * len(sha256s)
    for ordered in by_class.values():
        total = sum(len(indices) for _, indices in ordered)
        room = {split: share * total for split, share in shares.items()}
        for _, indices in sorted(ordered):
            if split := next((name for name in room if room[name] >= len(indices) / 2), None):
                room[split] -= len(indices)
                for index in indices:
                    splits[index] = split
    return splits


def _groups(images: Sequence[Labeled], copies: Indices) -> Indices:
    """Return (N,): equal numbers for images that copies or groups connect."""
    pairs = list(enumerate(copies.tolist()))
    firsts: dict[str, int] = {}
    for index, image in enumerate(images):
        if image.group is not None:
            pairs.append((index, firsts.setdefault(image.group, index)))
    return connected(len(images), pairs)
