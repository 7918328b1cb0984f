"""Temporary folder of a preparation; those of killed runs are removed by the next run."""

import fcntl
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

PREFIX = ".prepare-"

# A run holds a lock on this file, which the kernel releases even after SIGKILL.
LOCK = "in-use"


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Yield a temporary folder in `parent`, after the removal of those of killed runs."""
    for lock in parent.glob(f"{PREFIX}*/{LOCK}"):
        _remove_unused(lock)
    with (
        TemporaryDirectory(prefix=PREFIX, dir=parent) as folder,
        Path(folder, LOCK).open("wb") as file,
    ):
        fcntl.flock(file, fcntl.LOCK_EX)
        yield Path(folder)


def _remove_unused(lock: Path) -> None:
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent)
    except OSError:
        # Another run uses it or has removed it, or it belongs to another user.
        return
    print(f"removed {lock.parent}, which a killed run left behind", file=sys.stderr)
