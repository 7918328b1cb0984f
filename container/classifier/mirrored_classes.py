"""Classes whose names contain left and right: flipping an image would swap their labels."""

import re
from collections.abc import Sequence

# Such as "left", "hand_left" and "3L".
_LEFT_AND_RIGHT = (
    (re.compile(r"left", re.IGNORECASE), "right"),
    (re.compile(r"(?<![a-z])L$"), "R"),
)


def mirrored_classes(class_names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of classes that differ in left and right only, such as 3L and 3R."""
    known = {name.lower(): name for name in class_names}
    pairs = []
    for name in class_names:
        for left, right in _LEFT_AND_RIGHT:
            mirrored = known.get(left.sub(right, name).lower())
            if mirrored is not None and mirrored != name:
                pairs.append((name, mirrored))
    return pairs
