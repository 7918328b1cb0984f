"""Resumable state on disk."""

import math
from pathlib import Path

import pytest
import torch

from container.training.fitting.checkpoint import Checkpoints

JOB, OTHER = "1234567890abcdef", "abcdef1234567890"


def of_job(directory: Path, fingerprint: str = JOB, interval_seconds: float = 60) -> Checkpoints:
    return Checkpoints(directory, fingerprint, interval_seconds)


def state(step: int) -> dict[str, object]:
    return {"step": step, "weights": torch.full((100,), float(step))}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Two checkpoints in a folder that did not exist."""
    directory = tmp_path / "not" / "yet"
    for step in (10, 9, 200):
        of_job(directory).save(step, state(step))
    return directory


def test_the_newest_state_comes_back(directory: Path) -> None:
    loaded = of_job(directory).load_newest()

    assert loaded is not None
    assert loaded["step"] == 200
    assert torch.equal(loaded["weights"], torch.full((100,), 200.0))  # type: ignore[arg-type]


def test_two_are_kept(directory: Path) -> None:
    assert sorted(path.name for path in directory.iterdir()) == [
        "1234567890ab-step-000000010.pt",
        "1234567890ab-step-000000200.pt",
    ]


def test_what_a_killed_run_left_half_written_is_removed(directory: Path) -> None:
    (directory / "1234567890ab-step-000000201.tmp").write_bytes(b"half")

    of_job(directory).save(300, state(300))

    assert not list(directory.glob("*.tmp"))


def test_no_folder_and_no_file_are_no_checkpoint(tmp_path: Path) -> None:
    assert of_job(tmp_path / "missing").load_newest() is None
    assert of_job(tmp_path).load_newest() is None


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_torn_file_is_passed_over(directory: Path, share: float) -> None:
    newest = directory / "1234567890ab-step-000000200.pt"
    data = newest.read_bytes()
    newest.write_bytes(data[: int(len(data) * share)])

    loaded = of_job(directory).load_newest()

    assert loaded is not None
    assert loaded["step"] == 10


def test_a_file_with_damage_in_its_middle_is_passed_over(directory: Path) -> None:
    newest = directory / "1234567890ab-step-000000200.pt"
    data = bytearray(newest.read_bytes())
    place = data.index(torch.tensor(200.0).numpy().tobytes())
    data[place : place + 4] = torch.tensor(math.nan).numpy().tobytes()
    newest.write_bytes(data)

    loaded = of_job(directory).load_newest()

    assert loaded is not None
    assert loaded["step"] == 10


@pytest.mark.parametrize(
    "data", [b"\x80\x02.", b"\x80\x02h\x05.", b"(((", b"PK\x03\x04", b"\0" * 99]
)
def test_garbage_is_passed_over(directory: Path, data: bytes) -> None:
    (directory / "1234567890ab-step-000000201.pt").write_bytes(data)

    loaded = of_job(directory).load_newest()

    assert loaded is not None
    assert loaded["step"] == 200


def test_another_jobs_checkpoints_are_passed_over_and_kept(directory: Path) -> None:
    for step in (1000, 1001):
        of_job(directory, OTHER).save(step, state(step))

    of_job(directory).save(201, state(201))

    # By their steps alone the other job's would be the newest two.
    for fingerprint, step in ((JOB, 201), (OTHER, 1001)):
        loaded = of_job(directory, fingerprint).load_newest()
        assert loaded is not None
        assert loaded["step"] == step
    assert of_job(directory, "third").load_newest() is None


def test_a_file_under_this_jobs_name_that_is_anothers_is_passed_over(directory: Path) -> None:
    newest = directory / "1234567890ab-step-000000201.pt"
    torch.save({"fingerprint": JOB[:12] + "0000", "step": 201}, newest)

    loaded = of_job(directory).load_newest()

    assert loaded is not None
    assert loaded["step"] == 200


def test_one_is_due_when_the_last_one_is_older_than_the_interval(tmp_path: Path) -> None:
    assert not of_job(tmp_path, interval_seconds=3600).is_due()
    always = of_job(tmp_path, interval_seconds=0)
    assert always.is_due()
    always.save(1, state(1))
    assert always.is_due()


def test_a_file_that_would_execute_something_is_passed_over(
    directory: Path, tmp_path: Path
) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "executed",)

    torch.save(
        {"fingerprint": JOB, "step": Malicious()}, directory / "1234567890ab-step-000000201.pt"
    )

    loaded = of_job(directory).load_newest()

    assert loaded is not None
    assert loaded["step"] == 200
    assert not (tmp_path / "executed").exists()


def test_a_folder_that_cannot_be_made_is_said_and_costs_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "checkpoints").touch()

    of_job(tmp_path / "checkpoints").save(1, state(1))

    assert "no checkpoint: " in caplog.text
