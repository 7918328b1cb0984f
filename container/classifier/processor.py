"""What this machine's processor is made for."""

from pathlib import Path

# Of x86: products of bfloat16 by one instruction. Where it is not, they are computed in float32
# after a conversion, and nothing is gained.
BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


def multiplies_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Tell whether networks in bfloat16 are fast here."""
    try:
        return not BFLOAT16_FLAGS.isdisjoint(cpuinfo.read_text(encoding="utf-8").split())
    except OSError:
        # Not on Linux.
        return False
