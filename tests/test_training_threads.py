"""Compute threads of training under a CPU quota."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from container.classifier import machine
from container.training.sagemaker.supervisor import THREADS_VARIABLE, limit_threads_to_quota


@pytest.fixture(autouse=True)
def _two_cpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    # Recorded first, so that it is removed after the test.
    monkeypatch.setenv(THREADS_VARIABLE, "2")
    monkeypatch.delenv(THREADS_VARIABLE)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    "files",
    [
        {"cpu.max": "50000 100000"},
        {"cpu.max": "100000 100000"},
        {"cpu.max": "150000 100000"},
        {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"},
    ],
    ids=["half a CPU", "one CPU", "one and a half", "cgroup v1"],
)
def test_a_quota_limits_torch_and_child_processes(tmp_path: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")

    limit_threads_to_quota(tmp_path)

    assert torch.get_num_threads() == 1
    assert os.environ[THREADS_VARIABLE] == "1"


@pytest.mark.parametrize("text", ["max 100000", "200000 100000", "900000 100000"])
def test_without_a_lower_quota_nothing_changes(tmp_path: Path, text: str) -> None:
    (tmp_path / "cpu.max").write_text(f"{text}\n")

    limit_threads_to_quota(tmp_path)

    assert machine.cpu_quota(tmp_path) is None
    assert torch.get_num_threads() == 2
    assert THREADS_VARIABLE not in os.environ


def test_a_number_of_threads_set_by_the_user_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    monkeypatch.setenv(THREADS_VARIABLE, "7")

    limit_threads_to_quota(tmp_path)

    assert os.environ[THREADS_VARIABLE] == "7"


def test_the_sessions_of_nncf_are_limited() -> None:
    # In another process: the module hides torch from NNCF.
    code = (
        "import onnxruntime; from container.training.output import quantizer; "
        "quantizer.limit_threads(1); print(onnxruntime.SessionOptions().intra_op_num_threads)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split()[-1] == "1"
