"""Resumable state in /opt/ml/checkpoints: what a stopped or reclaimed job continues from."""

import contextlib
import logging
import os
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch

logger = logging.getLogger(__name__)

KEEP = 2


class Checkpoints:
    """The checkpoints of one job in a folder that may hold those of others."""

    def __init__(self, directory: Path, fingerprint: str, interval_seconds: float) -> None:
        """Keep them in `directory`, told from others by `fingerprint`, in hexadecimal."""
        self.directory = directory
        self._fingerprint, self._interval_seconds = fingerprint, interval_seconds
        self._pattern = f"{fingerprint[:12]}-step-*.pt"
        self._last_save = time.monotonic()

    def is_due(self) -> bool:
        """Tell whether the last one is older than the interval."""
        return time.monotonic() - self._last_save >= self._interval_seconds

    def save(self, step: int, state: Mapping[str, object]) -> None:
        """Write the state at `step` and drop all but the newest of this job's checkpoints.

        Where the disk has no room for it, the log says so and the older ones stay.
        """
        path = self.directory / self._pattern.replace("*", f"{step:09d}")
        partial = path.with_suffix(".tmp")
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                torch.save({**state, "fingerprint": self._fingerprint}, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
            abandoned = self.directory.glob("*-step-*.tmp")
            for old in (*sorted(self.directory.glob(self._pattern))[:-KEEP], *abandoned):
                old.unlink()
            logger.info("checkpoint=%s", path)
        except (OSError, RuntimeError) as error:
            # The model is worth more than what would only be needed after an interruption.
            logger.warning("no checkpoint: %s", error)
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
        # After it: one that takes longer than the interval must not be all that happens.
        self._last_save = time.monotonic()

    def load_newest(self) -> Mapping[str, object] | None:
        """Return the newest readable state of this job, or None; a torn file is passed over."""
        own = sorted(self.directory.glob(self._pattern), reverse=True)
        if others := len(list(self.directory.glob("*-step-*.pt"))) - len(own):
            logger.warning(
                "%d checkpoints are of other data or hyperparameters, passed over", others
            )
        for path in own:
            try:
                # torch does not look at the checksums.
                with zipfile.ZipFile(path) as archive:
                    damaged = archive.testzip()
                if damaged:
                    logger.warning("%s is damaged in %s, passed over", path, damaged)
                    continue
                state = torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:  # noqa: BLE001 - a torn file makes torch raise nearly anything
                logger.warning("%s is not readable, passed over: %s", path, error)
                continue
            if not isinstance(state, dict) or state.get("fingerprint") != self._fingerprint:
                logger.warning("%s is not this job's, passed over", path)
                continue
            logger.info("continued_from=%s", path)
            return state
        return None
