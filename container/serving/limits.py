"""Limits of the system: open files, and places to write to."""

import os
import resource
import tempfile
from contextlib import suppress

from container.classifier.errors import UserError

# Each connection is an open file. Linux's default limit is 1,024 for a process.
MIN_FILES, MAX_FILES = 512, 65_536

SHARED_MEMORY = "/dev/shm"  # noqa: S108 - not a temporary file


def allow_open_files() -> None:
    """Raise the limit of open files for this process and its children.

    Raises:
        UserError: the limit is too low and cannot be raised.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return
    target = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft < target:
        # macOS has a lower limit than the hard one.
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
            soft = target
    if soft < MIN_FILES:
        raise UserError(f"at most {soft} files may be open (ulimit -n): allow {MIN_FILES} or more")


def heartbeat_dir() -> str:
    """Return a writable folder for gunicorn's heartbeat files, in memory if possible.

    Writing to a slow disk would block the worker.

    Raises:
        UserError: no folder is writable.
    """
    if os.access(SHARED_MEMORY, os.W_OK):
        return SHARED_MEMORY
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        raise UserError(
            f"neither {SHARED_MEMORY} nor a temporary folder is writable: mount one, "
            "such as `docker run --tmpfs /tmp`"
        ) from None
