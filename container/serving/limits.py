"""Limit of open files."""

import resource
from contextlib import suppress

from container.classifier.errors import UserError

# Each connection is an open file. Linux's default limit is 1,024 for a process.
MIN_FILES, MAX_FILES = 512, 65_536


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
