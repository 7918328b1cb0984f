"""Checkpoints on disk."""

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


def test_the_newest_checkpoint_is_loaded(directory: Path) -> None:
    loaded = of_job(directory).load_newest()

    assert loaded is not None
    assert loaded["step"] == 200
    assert torch.equal(loaded["weights"], torch.full((100,), 200.0))


def test_two_checkpoints_are_kept(directory: Path) -> None:
    assert sorted(path.name for path in directory.iterdir()) == [
        "1234567890ab-step-000000010.pt",
        "1234567890ab-step-000000200.pt",
    ]


def test_a_partial_file_of_a_killed_run_is_removed(directory: Path) -> None:
    (directory / "1234567890ab-step-000000201.tmp").write_bytes(b"half")

    of_job(directory).save(300, state(300))

    assert not list(directory.glob("*.tmp"))


def test_a_missing_or_empty_folder_has_no_checkpoint(tmp_path: Path) -> None:
    assert of_job(tmp_path / "missing").load_newest() is None
    assert of_job(tmp_path).load_newest() is None


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_skipped(directory: Path, share: float) -> None:
    newest = directory / "1234567890ab-step-000000200.pt"
    data = newest.read_bytes()
    newest.write_bytes(data[: int(len(data) * share)])

    loaded = of_job(directory).load_newest()

    assert loaded is not None
    assert loaded["step"] == 10


def test_a_file_with_a_wrong_checksum_is_skipped(directory: Path) -> None:
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
def test_a_file_of_garbage_is_skipped(directory: Path, data: bytes) -> None:
    (directory / "1234567890ab-step-000000201.pt").write_bytes(data)

    loaded = of_job(directory).load_newest()

    assert loaded is not None
    assert loaded["step"] == 200


def test_checkpoints_of_another_job_are_skipped_and_kept(directory: Path) -> None:
    for step in (1000, 1001):
        of_job(directory, OTHER).save(step, state(step))

    of_job(directory).save(201, state(201))

    # The checkpoints of the other job have higher step numbers.
    for fingerprint, step in ((JOB, 201), (OTHER, 1001)):
        loaded = of_job(directory, fingerprint).load_newest()
        assert loaded is not None
        assert loaded["step"] == step
    assert of_job(directory, "third").load_newest() is None


def test_a_file_with_another_fingerprint_is_skipped(directory: Path) -> None:
    newest = directory / "1234567890ab-step-000000201.pt"
    torch.save({"fingerprint": JOB[:12] + "0000", "step": 201}, newest)

    loaded = of_job(directory).load_newest()

    assert loaded is not None
    assert loaded["step"] == 200


def test_another_format_version_is_skipped_and_named(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    newest = directory / "1234567890ab-step-000000201.pt"
    torch.save({"fingerprint": JOB, "version": 99, "step": 201}, newest)

    loaded = of_job(directory).load_newest()

    assert loaded is not None
    assert loaded["step"] == 200
    assert f"{newest} has format version 99, this program reads version 1, skipped" in caplog.text


def test_a_checkpoint_without_a_version_has_version_1(directory: Path) -> None:
    torch.save({"fingerprint": JOB, "step": 201}, directory / "1234567890ab-step-000000201.pt")

    loaded = of_job(directory).load_newest()

    assert loaded is not None
    assert loaded["step"] == 201


def test_a_checkpoint_is_due_after_the_interval(tmp_path: Path) -> None:
    assert not of_job(tmp_path, interval_seconds=3600).is_due()
    always = of_job(tmp_path, interval_seconds=0)
    assert always.is_due()
    always.save(1, state(1))
    assert always.is_due()


def test_a_pickle_that_runs_code_is_skipped(directory: Path, tmp_path: Path) -> None:
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


def test_a_folder_that_cannot_be_created_is_only_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "checkpoints").touch()

    of_job(tmp_path / "checkpoints").save(1, state(1))

    assert "no checkpoint: " in caplog.text
