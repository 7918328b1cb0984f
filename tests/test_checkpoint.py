"""Resumable state on disk."""

from pathlib import Path

import pytest
import torch

from training import checkpoint


def state(step: int, fingerprint: str = "job") -> dict[str, object]:
    return {"fingerprint": fingerprint, "step": step, "weights": torch.full((100,), float(step))}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Two checkpoints in a folder that did not exist."""
    directory = tmp_path / "not" / "yet"
    for step in (10, 9, 200):
        checkpoint.save(directory, step, state(step))
    return directory


def test_the_newest_state_comes_back(directory: Path) -> None:
    loaded = checkpoint.load_newest(directory, "job")

    assert loaded is not None
    assert loaded["step"] == 200
    assert torch.equal(loaded["weights"], torch.full((100,), 200.0))  # type: ignore[arg-type]


def test_two_are_kept(directory: Path) -> None:
    assert sorted(path.name for path in directory.iterdir()) == [
        "step-000000010.pt",
        "step-000000200.pt",
    ]


def test_what_a_killed_run_left_half_written_is_removed(directory: Path) -> None:
    (directory / "step-000000201.tmp").write_bytes(b"half")

    checkpoint.save(directory, 300, state(300))

    assert not list(directory.glob("*.tmp"))


def test_no_folder_and_no_file_are_no_checkpoint(tmp_path: Path) -> None:
    assert checkpoint.load_newest(tmp_path / "missing", "job") is None
    assert checkpoint.load_newest(tmp_path, "job") is None


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_torn_file_is_passed_over(directory: Path, share: float) -> None:
    newest = directory / "step-000000200.pt"
    data = newest.read_bytes()
    newest.write_bytes(data[: int(len(data) * share)])

    loaded = checkpoint.load_newest(directory, "job")

    assert loaded is not None
    assert loaded["step"] == 10


@pytest.mark.parametrize(
    "data", [b"\x80\x02.", b"\x80\x02h\x05.", b"(((", b"PK\x03\x04", b"\0" * 99]
)
def test_garbage_is_passed_over(directory: Path, data: bytes) -> None:
    (directory / "step-000000201.pt").write_bytes(data)

    loaded = checkpoint.load_newest(directory, "job")

    assert loaded is not None
    assert loaded["step"] == 200


def test_another_jobs_checkpoint_is_passed_over(directory: Path) -> None:
    checkpoint.save(directory, 300, state(300, fingerprint="other"))

    loaded = checkpoint.load_newest(directory, "job")

    assert loaded is not None
    assert loaded["step"] == 200
    assert checkpoint.load_newest(directory, "third") is None


def test_a_file_that_would_execute_something_is_passed_over(
    directory: Path, tmp_path: Path
) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "executed",)

    torch.save({"fingerprint": "job", "step": Malicious()}, directory / "step-000000201.pt")

    loaded = checkpoint.load_newest(directory, "job")

    assert loaded is not None
    assert loaded["step"] == 200
    assert not (tmp_path / "executed").exists()


def test_a_folder_that_cannot_be_made_is_said_and_costs_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "checkpoints").touch()

    checkpoint.save(tmp_path / "checkpoints", 1, state(1))

    assert "no checkpoint: " in caplog.text
