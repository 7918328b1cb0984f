"""Large files on the job's disk that processes share and a later run reuses.

Entries are created by renaming complete files, and never change. A reader of an entry holds a
shared lock on it, its writer an exclusive lock; locks end with their processes.
"""

import fcntl
import logging
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from container.classifier.environment import CACHE_DIR_VARIABLE, cache_dir
from container.classifier.errors import UserError
from container.classifier.locks import is_at, try_lock
from container.training.sagemaker.stop import Stop

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1

# Fraction of the disk that is kept free for checkpoints and the model.
FREE_FRACTION = 0.05


@dataclass(frozen=True, slots=True)
class Cache:
    """A folder of entries, each identified by a key."""

    directory: Path

    @classmethod
    def of_this_user(cls) -> Self:
        """Return the cache in CACHE_DIR_VARIABLE's folder, else in a temporary folder of this user.

        Raises:
            UserError: the folder cannot be created, or other users can access it.
        """
        chosen, directory = os.environ.get(CACHE_DIR_VARIABLE), cache_dir()
        with _os_errors_reported(directory):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = directory.lstat()
        # In a folder that all users share, another user may have created it first.
        is_private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077
        if not chosen and not (is_private and status.st_uid == os.geteuid()):
            raise UserError(
                f"{directory}, for decoded images, is not a private folder of this user: remove "
                f"it, or set {CACHE_DIR_VARIABLE} to another folder"
            )
        return cls(directory)

    @contextmanager
    def locked(self, key: str, stop: Stop) -> Iterator[BinaryIO]:
        """Wait for the exclusive lock of `key`; yield an empty file to `publish`.

        Raises:
            UserError: the folder is not writable.
            Stopped: a stop was requested while waiting.
        """
        path = self._partial(key)
        with self._lock(path, stop) as file:
            # A killed process may have left data.
            file.truncate()
            try:
                yield file
            finally:
                if is_at(file, path):
                    path.unlink(missing_ok=True)

    def find(self, key: str) -> BinaryIO | None:
        """Open an entry, which is not removed while the file or a map of it is open."""
        try:
            file = self._entry(key).open("rb")
        except FileNotFoundError:
            return None
        # Other processes hold an exclusive lock on an entry for a moment only. A map duplicates the
        # descriptor, and the lock is held until the last duplicate is closed.
        fcntl.flock(file, fcntl.LOCK_SH)
        # The time of the last use.
        os.utime(file.fileno())
        return file

    def reserve(self, file: BinaryIO, size_bytes: int) -> None:
        """Allocate disk space for `file`; remove unused entries if needed, the oldest first.

        Raises:
            OSError: the disk has too little space.
        """
        for path in self.directory.glob("decoded-*.partial"):
            _remove_unused(path)
        for path in sorted(self.directory.glob("decoded-*.pixels"), key=_last_use):
            disk = shutil.disk_usage(self.directory)
            if disk.free >= size_bytes + FREE_FRACTION * disk.total:
                break
            if _remove_unused(path):
                logger.info("evicted=%s", path)
        if hasattr(os, "posix_fallocate"):
            # Reports a full disk at once, not after minutes of decoding.
            os.posix_fallocate(file.fileno(), 0, size_bytes)

    def publish(self, key: str, file: BinaryIO) -> None:
        """Make the file that `locked` yielded the entry `key`; its lock becomes a shared lock."""
        file.flush()
        # Without it, a power failure could leave an entry of zeros.
        os.fsync(file.fileno())
        self._partial(key).replace(self._entry(key))
        fcntl.flock(file, fcntl.LOCK_SH)

    def _lock(self, path: Path, stop: Stop) -> BinaryIO:
        is_waiting = False
        while True:
            with _os_errors_reported(self.directory):
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, mode=0o600)
                file = os.fdopen(descriptor, "r+b")
                # The lock of a file that was published or removed meanwhile protects nothing.
                if try_lock(file) and is_at(file, path):
                    return file
                file.close()
            if not is_waiting:
                logger.info("waiting_for=%s", path)
                is_waiting = True
            stop.check()
            time.sleep(POLL_SECONDS)

    def _entry(self, key: str) -> Path:
        return self.directory / f"decoded-{key}.pixels"

    def _partial(self, key: str) -> Path:
        return self.directory / f"decoded-{key}.partial"


@contextmanager
def _os_errors_reported(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{directory} cannot hold decoded images ({error.strerror}): set "
            f"{CACHE_DIR_VARIABLE} to a writable folder on a local disk"
        ) from error


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0


def _remove_unused(path: Path) -> bool:
    """Remove a file unless a process has locked it; return whether it was removed."""
    try:
        with path.open("rb") as file:
            if not (try_lock(file) and is_at(file, path)):
                return False
            path.unlink()
    except OSError:
        # Another process has removed it, or it belongs to another user.
        return False
    return True
