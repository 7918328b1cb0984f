"""What this machine's processor is made for."""

from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")

# Of x86: products of bfloat16 by one instruction. Where it is not, they are computed in float32
# after a conversion, and nothing is gained.
BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})

# Of x86: products of int8 added up in int32 by one instruction. Where it is not, it takes several,
# and sums between them can overflow.
INT8_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})


def multiplies_bfloat16(cpuinfo: Path = CPUINFO) -> bool:
    """Tell whether networks in bfloat16 are fast here."""
    return not BFLOAT16_FLAGS.isdisjoint(_flags(cpuinfo))


def multiplies_int8(cpuinfo: Path = CPUINFO) -> bool:
    """Tell whether networks in int8 are fast and exact here."""
    return not INT8_FLAGS.isdisjoint(_flags(cpuinfo))


def _flags(cpuinfo: Path) -> list[str]:
    try:
        return cpuinfo.read_text(encoding="utf-8").split()
    except OSError:
        # Not on Linux.
        return []
