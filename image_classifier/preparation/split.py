"""Assigns images to training, validation and test by their content."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence

from container.classifier.errors import UserError


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
