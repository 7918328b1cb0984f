"""What a processor says of itself."""

from pathlib import Path

import pytest

from container.classifier.processor import multiplies_int8


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx2 avx512f avx512_vnni avx512_bf16", True),
        ("fpu avx2 avx_vnni", True),
        ("fpu avx512f avx512_vnni amx_bf16 amx_tile amx_int8", True),
        ("fpu avx2 avx512f avx512bw avx512vl", False),
        ("fp asimd asimddp i8mm bf16", False),
    ],
)
def test_instructions_for_int8_are_known_by_their_names(
    tmp_path: Path, flags: str, *, expected: bool
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nmodel name\t: A\nflags\t\t: {flags}\n\n")

    assert multiplies_int8(cpuinfo) is expected


def test_a_system_that_does_not_tell_has_none(tmp_path: Path) -> None:
    assert not multiplies_int8(tmp_path / "cpuinfo")
