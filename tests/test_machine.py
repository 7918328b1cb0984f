"""CPUs, memory, processor instructions and GPUs that this process may use."""

from pathlib import Path

import pytest

from container.classifier import machine
from container.classifier.machine import (
    gpu_count,
    has_bfloat16_instructions,
    has_int8_instructions,
    memory_limit_bytes,
    usable_cpus,
)


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 0.5),
        ({"cpu.max": "900000 1000"}, None),
        ({"cpu.max": "garbage"}, None),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "60000", "cpu/cpu.cfs_period_us": "100000"}, 0.6),
    ],
)
def test_usable_cpus_are_the_minimum_of_affinity_and_quota(
    tmp_path: Path, files: dict[str, str], cpus: float | None
) -> None:
    unlimited = usable_cpus(tmp_path)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")

    assert usable_cpus(tmp_path) == (cpus or unlimited)


def test_without_a_quota_the_affinity_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {1, 2, 5}, raising=False)

    assert usable_cpus(tmp_path) == 3


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_memory_limit_is_the_cgroups(tmp_path: Path, name: str) -> None:
    unlimited = memory_limit_bytes(tmp_path)
    (tmp_path / "memory").mkdir()

    (tmp_path / name).write_text("max\n")
    assert memory_limit_bytes(tmp_path) == unlimited
    (tmp_path / name).write_text(f"{2**63}\n")
    assert memory_limit_bytes(tmp_path) == unlimited
    (tmp_path / name).write_text(f"{2**20}\n")
    assert memory_limit_bytes(tmp_path) == 2**20


@pytest.mark.parametrize(
    ("flags", "has_int8", "has_bfloat16"),
    [
        ("fpu avx2 avx512f avx512_vnni avx512_bf16", True, True),
        ("fpu avx2 avx_vnni", True, False),
        ("fpu avx512f avx512_vnni amx_bf16 amx_tile amx_int8", True, True),
        ("amx_bf16 fpu", False, True),
        ("fpu avx2 avx512f avx512bw avx512vl", False, False),
        ("fp asimd asimddp i8mm bf16", False, False),
    ],
)
def test_instructions_are_found_in_the_flags(
    tmp_path: Path, flags: str, *, has_int8: bool, has_bfloat16: bool
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nmodel name\t: A\nflags\t\t: {flags}\n\n")

    assert has_int8_instructions(cpuinfo) is has_int8
    assert has_bfloat16_instructions(cpuinfo) is has_bfloat16


def test_a_system_without_cpuinfo_has_no_such_instructions(tmp_path: Path) -> None:
    assert not has_int8_instructions(tmp_path / "cpuinfo")
    assert not has_bfloat16_instructions(tmp_path / "cpuinfo")


def test_gpus_are_counted_by_their_device_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "DEVICES", tmp_path)
    assert gpu_count() == 0

    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()

    assert gpu_count() == 2
