"""Stops, restarts and several hosts: items 9, 10 and 11 of the contract's checklist."""

import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from container.classifier.artifact import WEIGHTS, Artifact
from tests.opt_ml import (
    Finished,
    make_hosts,
    make_job,
    metrics,
    train,
    train_together,
    training,
    training_together,
    wait_for,
    write_json,
)

# Enough epochs for a signal to arrive before the end; a checkpoint after each.
EPOCHS = {"epochs": "25", "checkpoint_interval_seconds": "0"}
TOGETHER = EPOCHS | {"epochs": "12"}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base_dir = make_job(tmp_path_factory.mktemp("uninterrupted"), **EPOCHS)
    code, output = train(base_dir)
    assert code == 0, output
    return base_dir


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same job after SIGTERM in its fourth epoch."""
    base_dir = make_job(tmp_path_factory.mktemp("stopped"), **EPOCHS)
    with training(base_dir) as process:
        wait_for(process, r"\bepoch=3 ")
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "stopped_at_epoch=" in output
    return base_dir


def test_9_sigterm_saves_the_best_model_and_exits_with_0(stopped: Path) -> None:
    manifest = Artifact.read(stopped / "model").manifest
    history = metrics(stopped)["history"]

    assert isinstance(history, list)
    assert 3 <= len(history) < 25
    assert manifest.metrics["val_accuracy"] == max(epoch["val_accuracy"] for epoch in history)
    assert not (stopped / "output" / "failure").exists()


def test_9_sigterm_leaves_a_checkpoint(stopped: Path) -> None:
    names = [path.name for path in (stopped / "checkpoints").iterdir()]

    assert 1 <= len(names) <= 2
    assert all(name.endswith(".pt") for name in names)


def test_10_a_stopped_job_continues_with_the_same_result(
    stopped: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    base_dir = _restarted(stopped, tmp_path)

    code, output = train(base_dir)

    assert code == 0, output
    assert "continued_from=" in output
    assert " epoch=1 " not in f" {output}"
    _assert_equal(base_dir, uninterrupted)


def test_10_a_killed_job_continues_with_the_same_result(
    uninterrupted: Path, tmp_path: Path
) -> None:
    first = make_job(tmp_path / "first", **EPOCHS)
    with training(first) as process:
        wait_for(process, r"\bepoch=4 ")
        process.kill()
    base_dir = _restarted(first, tmp_path / "second")

    code, output = train(base_dir)

    assert code == 0, output
    assert "continued_from=" in output
    _assert_equal(base_dir, uninterrupted)


def test_10_a_finished_job_that_is_started_again_writes_the_same_model(
    uninterrupted: Path, tmp_path: Path
) -> None:
    base_dir = _restarted(uninterrupted, tmp_path)

    code, output = train(base_dir)

    assert code == 0, output
    _assert_equal(base_dir, uninterrupted)


def test_10_a_checkpoint_of_other_hyperparameters_is_skipped(stopped: Path, tmp_path: Path) -> None:
    base_dir = make_job(tmp_path, epochs="1", seed="5")
    shutil.copytree(stopped / "checkpoints", base_dir / "checkpoints")

    code, output = train(base_dir)

    assert code == 0, output
    assert "skipped" in output
    assert "continued_from=" not in output


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], list[Finished]]:
    """A job of two hosts, each with a separate /opt/ml."""
    directories = make_hosts(tmp_path_factory.mktemp("hosts"), **TOGETHER)
    return directories, train_together(directories)


def test_11_two_hosts_train_together_and_both_exit_with_0(
    together: tuple[list[Path], list[Finished]],
) -> None:
    _, (second, first) = together

    assert (first.code, second.code) == (0, 0), first.output + second.output
    assert "processes=2" in first.output


def test_11_only_the_first_host_by_name_writes_the_model(
    together: tuple[list[Path], list[Finished]],
) -> None:
    (second, first), _ = together

    assert Artifact.read(first / "model")
    assert not (second / "model").exists()
    assert not (second / "output/data").exists()


def test_11_only_the_first_host_logs_metrics(
    together: tuple[list[Path], list[Finished]],
) -> None:
    _, (second, first) = together

    assert first.output.count("val_accuracy=") == 13
    assert "val_accuracy=" not in second.output


def test_11_two_hosts_count_every_image_once(
    together: tuple[list[Path], list[Finished]],
) -> None:
    (_, first), _ = together
    history = metrics(first)["history"]

    assert isinstance(history, list)
    # 24 of the 30 images are for training.
    assert all(epoch["train_accuracy"] * 24 % 1 == pytest.approx(0, abs=1e-9) for epoch in history)


def test_11_a_stop_on_one_host_stops_both_and_both_continue(
    together: tuple[list[Path], list[Finished]], tmp_path: Path
) -> None:
    (_, uninterrupted), _ = together
    stopped = make_hosts(tmp_path / "stopped", **TOGETHER)
    with training_together(stopped) as (second, first):
        wait_for(first, r"\bepoch=3 ")
        second.send_signal(signal.SIGTERM)
        outputs = [process.communicate()[0] for process in (second, first)]
    assert (second.returncode, first.returncode) == (0, 0), "".join(outputs)
    assert "stopped_at_epoch=" in outputs[1]
    directories = make_hosts(tmp_path / "restarted", **TOGETHER)
    for directory in directories:
        shutil.copytree(stopped[1] / "checkpoints", directory / "checkpoints")

    finished = train_together(directories)

    assert [code for code, _ in finished] == [0, 0], finished
    assert "continued_from=" in finished[1].output
    _assert_equal(directories[1], uninterrupted)


def _restarted(earlier: Path, base_dir: Path) -> Path:
    """Make the job that SageMaker restarts: of its outputs only the checkpoints are kept."""
    for name in ("input", "checkpoints"):
        shutil.copytree(earlier / name, base_dir / name)
    return base_dir


def _assert_equal(base_dir: Path, expected: Path) -> None:
    weights = load_file(base_dir / "model" / WEIGHTS)
    expected_weights = load_file(expected / "model" / WEIGHTS)
    assert metrics(base_dir) == metrics(expected)
    assert weights.keys() == expected_weights.keys()
    assert all(torch.equal(weights[name], expected_weights[name]) for name in weights)


def test_11_hosts_with_different_images_fail(tmp_path: Path) -> None:
    directories = make_hosts(tmp_path, epochs="1")
    image = next((directories[1] / "input/data/training").rglob("*.png"))
    image.unlink()

    finished = train_together(directories)

    assert [code for code, _ in finished] == [1, 1], finished
    assert all("FullyReplicated, not ShardedByS3Key" in output for _, output in finished)


def test_9_a_stop_in_the_first_epoch_keeps_an_earlier_model(tmp_path: Path) -> None:
    base_dir = make_job(tmp_path)
    assert train(base_dir).code == 0
    before = (base_dir / "model/manifest.json").read_bytes()
    make_job(base_dir, epochs="10000", seed="1", batch_size="4")

    with training(base_dir) as process:
        wait_for(process, r"^arithmetic=")
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate()

    assert process.returncode == 0, output
    if "epoch=1 " not in output:
        assert (base_dir / "model/manifest.json").read_bytes() == before
    assert Artifact.read(base_dir / "model").manifest.metrics


def test_10_a_checkpoint_of_other_initial_weights_is_skipped(stopped: Path, tmp_path: Path) -> None:
    base_dir = _restarted(stopped, tmp_path)
    weights = base_dir / "input/data/weights"
    weights.mkdir()
    shutil.copy2(stopped / "model" / WEIGHTS, weights)
    write_json(
        base_dir, "inputdataconfig.json", {"training": {}, "weights": {"TrainingInputMode": "File"}}
    )

    code, output = train(base_dir, "train")

    assert code == 0, output
    assert "checkpoints of other data or hyperparameters or an earlier program skipped: " in output
