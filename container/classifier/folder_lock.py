"""The lock of a training's folder, whose files a second training would remove."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from container.classifier.errors import UserError

logger = logging.getLogger(__name__)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the folder; without one, or on a file system without locks, do nothing.

    Raises:
        UserError: another training is running there.
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
        raise UserError(
            f"another training is running in {folder}: wait for it or stop it"
        ) from None
    except OSError:
        # Some network file systems have no locks.
        logger.debug("%s cannot be locked", folder)
    try:
        yield
    finally:
        os.close(descriptor)
