"""The open files that this process may have."""

import resource
from contextlib import suppress

from container.classifier.errors import UserError

# Connections are open files. By default Linux allows a process 1,024.
LEAST_FILES, ENOUGH_FILES = 512, 65_536


def allow_open_files() -> None:
    """Raise the limit of open files of this process and its children.

    Raises:
        UserError: the limit is too low and cannot be raised.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return
    most = ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, ENOUGH_FILES)
    if soft < most:
        # macOS has another limit below the hard one.
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    if soft < LEAST_FILES:
        message = f"at most {soft} files may be open (ulimit -n): allow {LEAST_FILES} or more"
        raise UserError(message)
