"""Bad images moved out of the way: never deleted, and a list says where from."""

import json
import os
from collections.abc import Callable
from pathlib import Path

from container.classifier.errors import UserError
from image_classifier.preparation.audit import Audit
from image_classifier.preparation.findings import KINDS

LIST = "moved.jsonl"

# Copies or moves a file.
Transfer = Callable[[Path, Path], object]

# Of an image that several splits have, the one that stays; a fair score is worth more.
KEEP = ("test", "validation", "train")


def bad(audit: Audit) -> dict[str, str]:
    """Return the images that are to go, by their paths, and the kind of finding that says so.

    Of equal files one stays, where the score is measured if one lies there; where their labels
    contradict each other none does, for nobody knows which is right.
    """
    split_of = {image.name: image.split for image in audit.images}

    def worth(name: str) -> tuple[int, str]:
        split = split_of[name]
        return (KEEP.index(split) if split in KEEP else -1), name

    chosen: dict[str, str] = {}
    for finding in audit.findings:
        if finding.path not in split_of or not KINDS[finding.kind].is_moved:
            continue
        same = [finding.path, *finding.others]
        if finding.kind in {"exact-copy", "exact-copy-across-splits"}:
            same = sorted(same, key=worth)[1:]
        for name in same:
            chosen.setdefault(name, finding.kind)
    return chosen


def put(folder: Path, chosen: dict[str, str], aside: Path, transfer: Transfer) -> None:
    """Move or copy images from `folder` to `aside/KIND/PATH`, and list each before it goes.

    Raises:
        UserError: `aside` lies in the folder, or something of that name is there.
    """
    if aside.resolve().is_relative_to(folder.resolve()):
        message = f"{aside} lies in {folder}, where it would be taken for images: name another"
        raise UserError(message)
    if not chosen:
        return
    targets = [(name, kind, aside / kind / name) for name, kind in chosen.items()]
    if taken := [target for _, _, target in targets if os.path.lexists(target)]:
        message = f"{taken[0]} is there from an earlier time: name another folder than {aside}"
        raise UserError(message)
    aside.mkdir(parents=True, exist_ok=True)
    with (aside / LIST).open("a", encoding="utf-8") as file:
        for name, kind, target in targets:
            said = {"from": str(folder / name), "to": str(target), "kind": kind}
            file.write(json.dumps(said) + "\n")
            file.flush()
            target.parent.mkdir(parents=True, exist_ok=True)
            transfer(folder / name, target)
