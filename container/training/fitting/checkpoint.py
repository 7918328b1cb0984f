"""Checkpoints in /opt/ml/checkpoints, from which an interrupted job continues."""

import contextlib
import dataclasses
import functools
import hashlib
import logging
import os
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from container.training.fitting.task import Task

logger = logging.getLogger(__name__)

KEEP = 2

# Left out if unset, so that checkpoints of versions without them remain usable.
NEW_HYPERPARAMETERS = ("max_minutes",)

# Version of a checkpoint's state. Checkpoints without a version have version 1.
FORMAT_VERSION = 1


def fingerprint(task: Task, world_size: int) -> str:
    """Return a hash of everything that a job must share with the checkpoint it continues from."""
    # These do not change what is learned.
    settings = dataclasses.replace(
        task.hyperparameters,
        checkpoint_interval_seconds=1,
        min_accuracy=None,
        quantize="none",
        max_accuracy_drop=0,
        debug="off",
        debug_rules=None,
    )
    state = task.network.module.state_dict()
    # Under the names that they have in the classifier.
    shapes = [(f"network.{name}", *value.shape) for name, value in state.items()]
    data = (task.training.sha256, task.validation.sha256)
    parts = (settings, task.weights_source, shapes, data, world_size)
    text = repr(parts)
    for name in NEW_HYPERPARAMETERS:
        text = text.replace(f"{name}=None, ", "")
    return hashlib.sha256(text.encode()).hexdigest()


class Checkpoints:
    """The checkpoints of one job, in a folder that may hold those of other jobs."""

    def __init__(self, directory: Path, job_fingerprint: str, interval_seconds: float) -> None:
        """Use the files in `directory` that have the fingerprint, which is hexadecimal."""
        self.directory = directory
        self._fingerprint, self._interval_seconds = job_fingerprint, interval_seconds
        self._pattern = f"{job_fingerprint[:12]}-step-*.pt"
        self._last_save = time.monotonic()

    def is_due(self) -> bool:
        """Return whether the last checkpoint is older than the interval."""
        return time.monotonic() - self._last_save >= self._interval_seconds

    def save(self, step: int, state: Mapping[str, object]) -> None:
        """Write the state at `step`, then remove all but the newest checkpoints of this job.

        If the disk is full, a warning is logged and older checkpoints are kept.
        """
        path = self.directory / self._pattern.replace("*", f"{step:09d}")
        partial = path.with_suffix(".tmp")
        content = {**state, "fingerprint": self._fingerprint, "version": FORMAT_VERSION}
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
            abandoned = self.directory.glob("*-step-*.tmp")
            for old in (*sorted(self.directory.glob(self._pattern))[:-KEEP], *abandoned):
                old.unlink()
            logger.info("checkpoint=%s", path)
        except (OSError, RuntimeError) as error:
            # Training continues: a checkpoint is needed only after an interruption.
            logger.warning("no checkpoint: %s", error)
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
        # Measured from the end: saving may take longer than the interval.
        self._last_save = time.monotonic()

    def load_newest(self) -> Mapping[str, Any] | None:
        """Return `newest` and forget it, because it takes as much memory as the training."""
        state = self.newest
        del self.newest
        return state

    @functools.cached_property
    def newest(self) -> Mapping[str, Any] | None:
        """The newest readable state of this job, or None; damaged files are skipped."""
        own = sorted(self.directory.glob(self._pattern), reverse=True)
        if others := len(list(self.directory.glob("*-step-*.pt"))) - len(own):
            logger.warning(
                "checkpoints of other data or hyperparameters or an earlier program skipped: %d",
                others,
            )
        for path in own:
            try:
                # torch does not verify the checksums.
                with zipfile.ZipFile(path) as archive:
                    damaged = archive.testzip()
                if damaged:
                    logger.warning("%s is damaged in %s, skipped", path, damaged)
                    continue
                state = torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:  # noqa: BLE001 - torch raises many types on a damaged file
                logger.warning("%s is not readable, skipped: %s", path, error)
                continue
            if not isinstance(state, dict) or state.get("fingerprint") != self._fingerprint:
                logger.warning("%s belongs to another job, skipped", path)
                continue
            if (version := state.get("version", 1)) != FORMAT_VERSION:
                logger.warning(
                    "%s has format version %s, this program reads version %d, skipped",
                    path,
                    version,
                    FORMAT_VERSION,
                )
                continue
            logger.info("continued_from=%s", path)
            return state
        return None
