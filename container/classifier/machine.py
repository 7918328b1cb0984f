"""What this process may use of the machine: CPUs, memory, processor instructions and GPUs."""

import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
CPUINFO = Path("/proc/cpuinfo")
DEVICES = Path("/dev")

# x86 instructions that multiply bfloat16. Without them bfloat16 is converted to float32 first and
# is not faster.
BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})

# x86 instructions that multiply int8 and add up in int32. Without them several instructions are
# needed, and the sums between them can overflow.
INT8_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})


def usable_cpus(cgroups: Path = CGROUPS) -> float:
    """Return the minimum of the CPU affinity and the cgroup's CPU quota, a fraction perhaps.

    `os.cpu_count` returns the CPUs of the machine: a container limited to two of 64 CPUs that
    starts 64 threads spends its time switching between them.
    """
    quota = cpu_quota(cgroups)
    return _cpus() if quota is None else quota


def cpu_quota(cgroups: Path = CGROUPS) -> float | None:
    """Return the cgroup's CPU quota in CPUs if it is below the CPU affinity, else None."""
    # cgroup v2 has one file, v1 has two.
    numbers = _numbers(cgroups / "cpu.max") or (
        *_numbers(cgroups / "cpu" / "cpu.cfs_quota_us"),
        *_numbers(cgroups / "cpu" / "cpu.cfs_period_us"),
    )
    # Microseconds of CPU time per period; -1 means no quota.
    quota, period = numbers or (-1, 1)
    return quota / period if 0 < quota < period * _cpus() else None


def memory_limit_bytes(cgroups: Path = CGROUPS) -> int:
    """Return the minimum of the cgroup's memory limit and the machine's memory."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = (
        *_numbers(cgroups / "memory.max"),
        *_numbers(cgroups / "memory" / "memory.limit_in_bytes"),
    )
    return min([physical, *(limit for limit in limits if limit > 0)])


def has_bfloat16_instructions(cpuinfo: Path = CPUINFO) -> bool:
    """Return whether networks in bfloat16 are fast on this processor."""
    return not BFLOAT16_FLAGS.isdisjoint(_processor_flags(cpuinfo))


def has_int8_instructions(cpuinfo: Path = CPUINFO) -> bool:
    """Return whether networks in int8 are fast and exact on this processor."""
    return not INT8_FLAGS.isdisjoint(_processor_flags(cpuinfo))


def gpu_count() -> int:
    """Return the number of NVIDIA GPUs of this container, by their device files.

    CUDA is not called: a process that has initialized CUDA cannot fork workers that use it.
    """
    return sum(1 for _ in DEVICES.glob("nvidia[0-9]*"))


def _cpus() -> int:
    has_affinity = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


def _numbers(path: Path) -> tuple[int, ...]:
    """Return the numbers in a cgroup file, with `max` as -1; empty if it cannot be read.

    cgroup v1 and v2 have different files; other systems and strict containers have none.
    """
    try:
        return tuple(int(word.replace("max", "-1")) for word in path.read_text("ascii").split())
    except (OSError, ValueError):
        return ()


def _processor_flags(cpuinfo: Path) -> list[str]:
    try:
        return cpuinfo.read_text(encoding="utf-8").split()
    except OSError:
        # Not on Linux.
        return []
