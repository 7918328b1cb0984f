"""What this container may use of the machine: processors and memory, as its cgroup says."""

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


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


def _numbers(path: Path) -> tuple[int, ...]:
    """Return a file's numbers, `max` as -1; none where it cannot be read.

    cgroups of version 2 and 1 have other files, other systems and strict containers have none.
    """
    try:
        return tuple(int(word.replace("max", "-1")) for word in path.read_text("ascii").split())
    except (OSError, ValueError):
        return ()
