"""Which classes tell left from right by their names: mirroring would swap their labels."""

import re
from collections.abc import Sequence

# What names of sides look like: "left", "hand_right", "3L" and "3R".
_SIDES = ((re.compile(r"left", re.IGNORECASE), "right"), (re.compile(r"(?<![a-z])L$"), "R"))


def mirrored_classes(class_names: Sequence[str]) -> list[tuple[str, str]]:
    """Return pairs of classes whose names tell left from right, such as 3L and 3R."""
    known = {name.lower(): name for name in class_names}
    pairs = []
    for name in class_names:
        for left, right in _SIDES:
            mirrored = known.get(left.sub(right, name).lower())
            if mirrored is not None and mirrored != name:
                pairs.append((name, mirrored))
    return pairs
