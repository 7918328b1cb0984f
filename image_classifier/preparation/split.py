"""Training, validation and test: by content alone, every class alike, groups undivided."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence

from container.classifier.errors import UserError


def check_shares(shares: Mapping[str, float]) -> None:
    """Refuse shares that leave nothing to learn from.

    Raises:
        UserError: one is negative, or their sum is not below 1.
    """
    if any(share < 0 for share in shares.values()) or sum(shares.values()) >= 1:
        said = ", ".join(f"{name} {share:g}" for name, share in shares.items())
        message = f"the shares {said} leave nothing for training: they add up to less than 1"
        raise UserError(message)


def assign(
    sha256s: Sequence[str],
    class_names: Sequence[str],
    groups: Sequence[Hashable],
    shares: Mapping[str, float],
) -> list[str]:
    """Assign N images to `train` and to the splits of `shares`.

    Every class by itself, in the order of its contents' hashes: the first of them fill the first
    split until it has its share, and so on; the rest is for training. The same images give the
    same splits, whatever they are called and in whatever order they come, and few new ones move
    few old ones.

    Args:
        sha256s: N hashes of contents.
        class_names: N.
        groups: N; images of equal groups stay together, and count for the class that most of
            them have. A group is left to training where a split would get more than its share by
            half the group.
        shares: Of the splits beside `train`.
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for place, group in enumerate(groups):
        members[group].append(place)
    by_class: dict[str, list[tuple[str, list[int]]]] = defaultdict(list)
    for places in members.values():
        counts = Counter(class_names[place] for place in places)
        commonest = min(counts, key=lambda name: (-counts[name], name))
        by_class[commonest].append((_digest([sha256s[place] for place in places]), places))
    splits = ["train"] * len(sha256s)
    for ordered in by_class.values():
        total = sum(len(places) for _, places in ordered)
        room = {split: share * total for split, share in shares.items()}
        for _, places in sorted(ordered):
            if split := next((name for name in room if room[name] >= len(places) / 2), None):
                room[split] -= len(places)
                for place in places:
                    splits[place] = split
    return splits


def _digest(sha256s: Sequence[str]) -> str:
    """Return what depends on a group's contents alone."""
    return hashlib.sha256("".join(sorted(sha256s)).encode()).hexdigest()
