"""Locks that end with their processes: of a training's folder, and of files."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from container.classifier.errors import UserError

logger = logging.getLogger(__name__)


class LockedError(UserError):
    """Another training is running in the folder."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a training's folder, whose files a second training would remove.

    Do nothing if it does not exist, or if its file system has no locks.

    Raises:
        LockedError: another training is running there.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        # A missing folder is reported later, with a better message.
        yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise LockedError(
            f"another training is running in {folder}: wait for it or stop it"
        ) from None
    except OSError:
        # Some network file systems have no locks.
        logger.debug("%s cannot be locked", folder)
    try:
        yield
    finally:
        os.close(descriptor)


def try_lock(file: IO[Any]) -> bool:
    """Lock a file; return whether no other process has locked it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_at(file: IO[Any], path: Path) -> bool:
    """Return whether `path` is a name of the open file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
