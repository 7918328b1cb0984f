"""What this container may use of the machine: processors, memory and open files."""

import math
import os
import resource
from contextlib import suppress
from pathlib import Path

from container.classifier.errors import UserError

CGROUPS = Path("/sys/fs/cgroup")

# Connections are open files. Linux gives a process 1,024 unless it asks for more.
LEAST_FILES, ENOUGH_FILES = 256, 65_536


def usable_processors(cgroups: Path = CGROUPS) -> int:
    """Return the CPU quota in whole processors, at least 1.

    `os.cpu_count` tells the machine's processors: a container limited to two of 64 that starts 64
    threads spends its time switching between them.
    """
    available = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    numbers = _numbers(cgroups / "cpu.max") or (
        *_numbers(cgroups / "cpu" / "cpu.cfs_quota_us"),
        *_numbers(cgroups / "cpu" / "cpu.cfs_period_us"),
    )
    # Microseconds of processor time per period; a quota of -1 is none.
    quota, period = numbers or (-1, 1)
    return max(1, min(available, math.ceil(quota / period))) if quota > 0 else available


def usable_memory(cgroups: Path = CGROUPS) -> int:
    """Return the memory limit in bytes, at most the machine's memory."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = (
        *_numbers(cgroups / "memory.max"),
        *_numbers(cgroups / "memory" / "memory.limit_in_bytes"),
    )
    return min([physical, *(limit for limit in limits if limit > 0)])


def allow_open_files() -> None:
    """Have this process, and those it becomes or starts, open as many files as it may want to.

    Raises:
        UserError: the limit is too low, and not ours to raise.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return
    most = ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, ENOUGH_FILES)
    if soft < most:
        # macOS has a limit besides.
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    if soft < LEAST_FILES:
        message = f"at most {soft} files may be open (ulimit -n): allow {LEAST_FILES} or more"
        raise UserError(message)


def _numbers(path: Path) -> tuple[int, ...]:
    """Return a file's numbers, `max` as -1; none where it cannot be read.

    cgroups of version 2 and 1 have other files, other systems and strict containers have none.
    """
    try:
        return tuple(int(word.replace("max", "-1")) for word in path.read_text("ascii").split())
    except (OSError, ValueError):
        return ()
