"""Moves bad images to a separate folder with a list of their origins; deletes nothing."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from container.classifier.errors import UserError
from image_classifier.preparation.audit import Audit, audit, find_copies
from image_classifier.preparation.findings import KINDS

LIST = "moved.jsonl"

# Copies or moves a file.
Transfer: TypeAlias = Callable[[Path, Path], object]

# Where one of several equal files is kept: removing it from training does not bias a score.
KEEP = ("test", "validation", "train")


def move_bad_images(found: Audit, folder: Path, target: Path, transfer: Transfer) -> Audit:
    """Move or copy bad images from `folder` to `target/KIND/PATH`; audit the remaining ones.

    Raises:
        UserError: `target` is in the folder or contains a file of that name, or no image remains.
    """
    chosen = choose(found)
    if not chosen:
        return found
    _move(folder, chosen, target, transfer)
    remaining = [i for i, image in enumerate(found.images) if image.name not in chosen]
    if not remaining:
        raise UserError(f"every image was bad: all of them are in {target}")
    images, scan = [found.images[index] for index in remaining], found.scan.of(remaining)
    remaining_audit = audit(images, scan, find_copies(scan), found.earlier)
    return replace(remaining_audit, moved=len(chosen))


def choose(found: Audit) -> dict[str, str]:
    """Return the paths of the images to move, with the kind of finding that is the reason.

    One of several equal files is kept, if possible in a split other than training. None is kept
    if their labels contradict each other, because the correct label is unknown.
    """
    split_of = {image.name: image.split for image in found.images}

    def rank(name: str) -> tuple[int, str]:
        split = split_of[name]
        return (KEEP.index(split) if split in KEEP else -1), name

    chosen: dict[str, str] = {}
    for finding in found.findings:
        if finding.path not in split_of or not KINDS[finding.kind].is_moved:
            continue
        same = [finding.path, *finding.others]
        if finding.kind in {"exact-copy", "exact-copy-across-splits"}:
            same = sorted(same, key=rank)[1:]
        for name in same:
            chosen.setdefault(name, finding.kind)
    return chosen


def _move(folder: Path, chosen: Mapping[str, str], target: Path, transfer: Transfer) -> None:
    """Move or copy images, and list each before it is moved."""
    if target.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{target} is in {folder} and would be read as images: use another folder")
    moves = [(name, kind, target / kind / name) for name, kind in chosen.items()]
    if existing := [path for _, _, path in moves if os.path.lexists(path)]:
        raise UserError(
            f"{existing[0]} exists from an earlier run: use another folder than {target}"
        )
    target.mkdir(parents=True, exist_ok=True)
    with (target / LIST).open("a", encoding="utf-8") as file:
        for name, kind, path in moves:
            entry = {"from": str(folder / name), "to": str(path), "kind": kind}
            file.write(json.dumps(entry) + "\n")
            file.flush()
            path.parent.mkdir(parents=True, exist_ok=True)
            transfer(folder / name, path)
