"""Resumable state in /opt/ml/checkpoints: what a stopped or reclaimed job goes on from."""

import contextlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import torch

logger = logging.getLogger(__name__)

KEEP = 2


def save(directory: Path, step: int, state: Mapping[str, object]) -> None:
    """Write the state at `step` and drop all but the newest checkpoints.

    Where the disk has no room for it, the log says so and the older ones stay.
    """
    path = directory / f"step-{step:09d}.pt"
    partial = path.with_suffix(".tmp")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        for old in (*sorted(directory.glob("step-*.pt"))[:-KEEP], *directory.glob("step-*.tmp")):
            old.unlink()
    except (OSError, RuntimeError) as error:
        # The model is worth more than what would only be needed after an interruption.
        logger.warning("no checkpoint: %s", error)
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        return
    logger.info("checkpoint=%s", path)


def load_newest(directory: Path, fingerprint: str) -> Mapping[str, object] | None:
    """Return the newest readable state of the same job, or None.

    A torn file is passed over, and so is one whose `fingerprint` says that it comes from other
    data or other hyperparameters.
    """
    for path in sorted(directory.glob("step-*.pt"), reverse=True):
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # noqa: BLE001 - a torn file makes torch raise nearly anything
            logger.warning("%s is not readable, passed over: %s", path, error)
            continue
        if not isinstance(state, dict) or state.get("fingerprint") != fingerprint:
            logger.warning("%s is of other data or hyperparameters, passed over", path)
            continue
        logger.info("continued_from=%s", path)
        return state
    return None
