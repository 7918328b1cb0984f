"""The training loop: epochs, stops, checkpoints and early stopping."""

import contextlib
import itertools
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from container.classifier.artifact import WEIGHTS, Artifact
from container.training import job
from container.training.sagemaker.environment import TrainingEnvironment
from container.training.sagemaker.stop import Stop, Stopped, StopRequest
from tests.opt_ml import HYPERPARAMETERS, configure, make_job, metrics, train_here, write_images


class StopAfter(Stop):
    """A stop that is requested once it has been read a number of times."""

    def __init__(self, reads: int) -> None:
        self.reads = reads

    @property
    def requested(self) -> bool:
        self.reads -= 1
        return self.reads < 0


def make_small_job(base_dir: Path) -> Path:
    """Make a job of two epochs, each with three steps and two batches of validation images."""
    make_job(base_dir)
    data = base_dir / "input" / "data"
    write_images(data / "training", per_class=8)
    for number in (8, 9):
        for path in (data / "training").glob(f"*/{number}.png"):
            path.unlink()
    write_images(data / "validation", per_class=5, first=100)
    configure(base_dir, {**HYPERPARAMETERS, "epochs": "2"}, "training", "validation")
    return base_dir


# Reads of the stop before the first step: one per decoded image, and one at the end.
DECODING = 24 + 15 + 1


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base_dir = make_small_job(tmp_path_factory.mktemp("uninterrupted"))
    assert train_here(base_dir, "train") == 0
    return base_dir


@pytest.mark.parametrize(
    ("reads", "epoch", "batch"),
    [(0, 0, 0), (2, 0, 2), (3, 0, 3), (4, 0, 3), (5, 1, 0), (9, 1, 3)],
    ids=["step 1", "step 3", "evaluation", "half evaluated", "epoch 2", "last evaluation"],
)
def test_a_stop_at_any_step_takes_effect_at_once_and_loses_nothing(
    uninterrupted: Path, tmp_path: Path, reads: int, epoch: int, batch: int
) -> None:
    base_dir = make_small_job(tmp_path)
    environment = TrainingEnvironment(base_dir=base_dir)

    job.run(environment, StopAfter(DECODING + reads))

    (path,) = environment.checkpoint_dir.iterdir()
    progress = torch.load(path, weights_only=True)["progress"]
    assert (progress["epoch"], progress["batch"]) == (epoch, batch)
    job.run(environment, StopRequest())
    assert metrics(base_dir) == metrics(uninterrupted)
    weights = load_file(base_dir / "model" / WEIGHTS)
    expected = load_file(uninterrupted / "model" / WEIGHTS)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


# All settings with state or random numbers.
FROM_SCRATCH = {
    "class_balance": "sampling",
    "cutmix": "1",
    "cutout": "0.2",
    "ema_decay": "0.9",
    "gradient_accumulation_steps": "2",
    "half_size_steps": "0.4",
    "horizontal_flip": "true",
    "mixup": "0.2",
}
FINE_TUNED = {
    "class_balance": "weights",
    "early_stopping_patience": "4",
    "ema_decay": "0.8",
    "gradient_clip_norm": "1",
    "head_epochs": "2",
    "optimizer": "sgd",
}


@pytest.mark.slow
@pytest.mark.parametrize("case", ["from scratch", "fine-tuned"])
def test_stops_at_random_steps_change_no_bit_of_the_weights(
    uninterrupted: Path, tmp_path: Path, case: str
) -> None:
    settings = {**HYPERPARAMETERS, "epochs": "6"}
    settings |= FROM_SCRATCH if case == "from scratch" else FINE_TUNED

    def make(base_dir: Path) -> TrainingEnvironment:
        make_small_job(base_dir)
        channels = ["training", "validation"]
        if case == "fine-tuned":
            channels.append("weights")
            weights = base_dir / "input" / "data" / "weights"
            weights.mkdir()
            shutil.copy2(uninterrupted / "model" / WEIGHTS, weights)
        configure(base_dir, settings, *channels)
        return TrainingEnvironment(base_dir=base_dir)

    job.run(make(tmp_path / "whole"), StopRequest())
    environment = make(tmp_path / "stopped")
    random = np.random.default_rng((0, len(case)))
    positions = set()
    for number in range(5):
        # A stop during decoding writes no checkpoint. Later runs read the images from the cache.
        reads = random.integers(1, 8) if number else DECODING + random.integers(11)
        stop = StopAfter(int(reads))
        with contextlib.suppress(Stopped):
            job.run(environment, stop)
        assert stop.reads < 0
        for path in environment.checkpoint_dir.glob("*.pt"):
            progress = torch.load(path, weights_only=True)["progress"]
            positions.add((progress["epoch"], progress["batch"]))
    assert len(positions) >= 3
    job.run(environment, StopRequest())

    weights = load_file(tmp_path / "stopped" / "model" / WEIGHTS)
    expected = load_file(tmp_path / "whole" / "model" / WEIGHTS)
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole")
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_early_stopping_ends_training_without_improvement(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base_dir = make_job(tmp_path, epochs="50", early_stopping_patience="2", objective="val_loss")
    caplog.set_level(logging.INFO)

    job.run(TrainingEnvironment(base_dir=base_dir), StopRequest())

    report = metrics(base_dir)
    assert isinstance(report["history"], list)
    assert isinstance(report["epoch"], int)
    losses = [epoch["val_loss"] for epoch in report["history"]]
    assert len(losses) == report["epoch"] + 2 < 50
    assert min(losses) == losses[report["epoch"] - 1]
    assert f"early_stopping_at_epoch={len(losses)}" in caplog.messages


def test_early_stopping_waits_for_full_size_images(tmp_path: Path) -> None:
    settings = {"early_stopping_patience": "1", "objective": "val_loss", "learning_rate": "0.3"}
    base_dir = make_job(tmp_path, epochs="12", half_size_steps="0.9", **settings)

    job.run(TrainingEnvironment(base_dir=base_dir), StopRequest())

    report = metrics(base_dir)
    assert isinstance(report["history"], list)
    losses = [epoch["val_loss"] for epoch in report["history"]]
    # Some losses are worse than the one before, which would end training at full size.
    assert any(later > earlier for earlier, later in itertools.pairwise(losses[:10]))
    assert len(losses) > 10


def test_a_job_interrupted_after_its_last_epoch_only_exports(
    uninterrupted: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base_dir = make_small_job(tmp_path)
    shutil.copytree(uninterrupted / "checkpoints", base_dir / "checkpoints", dirs_exist_ok=True)
    caplog.set_level(logging.INFO)

    job.run(TrainingEnvironment(base_dir=base_dir), StopRequest())

    assert not [message for message in caplog.messages if message.startswith("epoch=")]
    assert metrics(base_dir) == metrics(uninterrupted)
    weights = load_file(base_dir / "model" / WEIGHTS)
    for name, value in load_file(uninterrupted / "model" / WEIGHTS).items():
        assert torch.equal(weights[name], value), name


def test_new_batch_norm_statistics_come_from_the_first_batch(tmp_path: Path) -> None:
    make_small_job(tmp_path)
    one_step = {"epochs": "1", "batch_size": "32"}
    configure(tmp_path, {**HYPERPARAMETERS, **one_step}, "training", "validation")

    assert train_here(tmp_path, "train") == 0

    weights = load_file(tmp_path / "model" / WEIGHTS)
    variances = [value for name, value in weights.items() if name.endswith("running_var")]
    # Variances start at 1, and torch's default momentum would keep nine tenths of that.
    assert variances
    assert all(variance.min() < 0.9 for variance in variances)


def test_without_fine_tuning_only_the_head_is_trained(uninterrupted: Path, tmp_path: Path) -> None:
    base_dir = make_small_job(tmp_path)
    weights = base_dir / "input" / "data" / "weights"
    weights.mkdir()
    shutil.copy2(uninterrupted / "model" / WEIGHTS, weights)
    settings = {**HYPERPARAMETERS, "fine_tuning": "none"}
    configure(base_dir, settings, "training", "validation", "weights")

    job.run(TrainingEnvironment(base_dir=base_dir), StopRequest())

    report, trained = metrics(base_dir), load_file(base_dir / "model" / WEIGHTS)
    before = load_file(uninterrupted / "model" / WEIGHTS)
    assert (report["epoch"], report["history"]) == (0, [])
    assert {k for k in before if not torch.equal(trained[k], before[k])} == {
        "head.weight",
        "head.bias",
    }
    assert (base_dir / "output/data/report.html").exists()
    made_of = [
        Artifact.read(each / "model").manifest.provenance["pretrained_weights"]
        for each in (base_dir, uninterrupted)
    ]
    assert made_of[0]
    assert made_of[1] is None


def test_the_kept_weights_are_those_of_the_best_epoch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base_dir = make_job(tmp_path, epochs="6", objective="val_loss", learning_rate="0.05")
    caplog.set_level(logging.INFO)

    job.run(TrainingEnvironment(base_dir=base_dir), StopRequest())

    report = metrics(base_dir)
    history = report["history"]
    assert isinstance(history, list)
    losses = [epoch["val_loss"] for epoch in history]
    assert report["epoch"] == 1 + int(np.argmin(losses))
    assert report["val_loss"] == min(losses)
    start = f"best_epoch={report['epoch']} val_loss="
    assert [message for message in caplog.messages if message.startswith(start)]
