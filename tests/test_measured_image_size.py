"""A job with a time budget measures a training step, and trains on the largest images in time."""

import logging
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from container.classifier.labeled_images import LabeledFile
from container.training import job
from container.training.fitting import measured_image_size
from container.training.fitting.cluster import Cluster, StateT
from container.training.fitting.measured_image_size import choose, recorded
from container.training.fitting.task import Task
from container.training.fitting.time_budget import TimeBudget
from container.training.hyperparameters import Hyperparameters
from container.training.output import results
from container.training.sagemaker.environment import TrainingEnvironment
from container.training.sagemaker.stop import StopRequest
from tests.opt_ml import configure, write_images
from tests.test_time_budget import Clock


@pytest.fixture
def image_seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a list whose last value is the time of a training step per image of 224 pixels."""
    seconds = [0.02]
    monkeypatch.setattr(measured_image_size, "_shorter_side", lambda _: 224.0)
    monkeypatch.setattr(measured_image_size, "_image_seconds", lambda *_: seconds[-1])
    return seconds


def size_of(images: int = 3000, cluster: Cluster | None = None, **settings: object) -> int:
    given = {"network": "squeezenet1_0", "max_minutes": 6.0, **settings}
    hyperparameters = Hyperparameters(**given)  # type: ignore[arg-type]
    # Without files, whose sizes do not matter then.
    files = [LabeledFile(Path("none.png"), "a")] * images
    return choose(hyperparameters, 2, files, files[: images // 5], cluster or Cluster(0, 1))


def test_more_images_and_less_time_make_smaller_images(image_seconds: list[float]) -> None:
    assert size_of(images=200) == 224
    sizes = [size_of(max_minutes=minutes) for minutes in (1.0, 3.0, 5.0, 8.0, 12.0)]
    assert sizes == sorted(sizes)
    assert sizes[0] == 128
    assert sizes[-1] == 224
    image_seconds.append(2.0)
    assert size_of(max_minutes=12.0) == 128
    assert size_of(max_minutes=12.0, cluster=TwoRanks(0, 200)) == 224


@pytest.mark.parametrize(("side", "size"), [(20, 128), (128, 128), (161, 192), (500, 224)])
def test_images_are_not_enlarged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int, size: int
) -> None:
    monkeypatch.setattr(measured_image_size, "_image_seconds", lambda *_: 0.02)
    path = tmp_path / "image.png"
    Image.new("RGB", (side, side + 9)).save(path)
    files = [LabeledFile(path, "a"), LabeledFile(tmp_path / "missing.png", "a")]
    hyperparameters = Hyperparameters(network="squeezenet1_0", max_minutes=60)
    assert choose(hyperparameters, 2, files, files, Cluster(0, 1)) == size


class TwoRanks(Cluster):
    """The first of several ranks."""

    def from_first(self, state: StateT) -> StateT:
        return state


@pytest.mark.parametrize(
    "settings",
    [
        {"max_minutes": None},
        {"image_size": 256},
        {"fine_tuning": "none"},
        {"network": "small"},
    ],
)
def test_other_jobs_have_the_usual_size(
    image_seconds: list[float], settings: dict[str, Any]
) -> None:
    image_seconds.append(2.0)
    usual = {"image_size": 256, "network": 128}
    assert size_of(**settings) == usual.get(next(iter(settings)), 224)


def test_networks_that_accept_one_size_keep_it(image_seconds: list[float]) -> None:
    image_seconds.append(2.0)
    assert size_of(network="maxvit_t") == 224


def test_a_step_is_measured(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    size = size_of(images=10)

    assert size == 224
    assert (
        "image_size=224: the median shorter side of the files is 224 or more pixels, and "
        in caplog.text
    )


def test_a_continued_job_keeps_its_size(
    tmp_path: Path,
    image_seconds: list[float],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {"network": "squeezenet1_0", "pretrained": "false", "max_minutes": "1"}
    write_images(tmp_path / "input/data/training", per_class=4)
    configure(tmp_path, {**settings, "batch_size": "8", "quantize": "none"}, "training")
    environment, tasks = TrainingEnvironment(base_dir=tmp_path), list[Task]()
    monkeypatch.setattr(results, "write", lambda _environment, task, *_: tasks.append(task))
    image_seconds.append(20.0)
    job.run(environment, StopRequest(), TimeBudget(Clock(6)))
    image_seconds.append(0.001)
    caplog.set_level(logging.INFO)

    job.run(environment, StopRequest(), TimeBudget(Clock(6)))

    assert "image_size=224" in caplog.text
    assert "continued_from=" in caplog.text
    assert [task.preprocessing.image_size for task in tasks] == [128, 128]


def test_a_checkpoint_of_an_earlier_version_has_no_size() -> None:
    assert recorded(None) is recorded({}) is None
    assert recorded({"image_size": 160}) == 160
