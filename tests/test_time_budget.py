"""The time budget of a job: its schedule, stops, restarts and results."""

import hashlib
import itertools
import json
import logging
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from container.classifier.errors import UserError
from container.debugger.recording.debug_session import Observer
from container.training import job
from container.training.device import Arithmetic
from container.training.fitting.checkpoint import Checkpoints, fingerprint
from container.training.fitting.cluster import Cluster, StateT
from container.training.fitting.loop import Trainer
from container.training.fitting.task import Task
from container.training.fitting.time_budget import TOLERANCE, TimeBudget
from container.training.hyperparameters import Hyperparameters
from container.training.output.expected_time import ExpectedTime
from container.training.output.tracking import Tracker
from container.training.sagemaker.environment import TrainingEnvironment
from container.training.sagemaker.stop import StopRequest
from image_classifier.platform import opt_ml
from tests.opt_ml import make_job
from tests.test_loop import StopAfter
from tests.test_measured_arithmetic import make_task

FLOAT32 = Arithmetic(torch.device("cpu"), torch.float32)


class Clock:
    """A clock that a test sets, or that advances at every reading."""

    def __init__(self, tick: float = 0.0) -> None:
        self.tick, self.now = tick, 0.0

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


def budget_of(minutes: float, clock: Clock, ending: Callable[[float | None], float]) -> TimeBudget:
    budget = TimeBudget(clock)
    budget.limit(minutes, ending)
    return budget


def fractions_of(budget: TimeBudget, clock: Clock, seconds: Callable[[int], float]) -> list[float]:
    """Make all steps that fit, of so many seconds each; return their positions."""
    fractions = list[float]()
    while True:
        budget.advance(is_required=False)
        if budget.fraction == 1:
            return fractions
        fractions.append(budget.fraction)
        clock.now += seconds(len(fractions))


def trainer_of(
    task: Task,
    *,
    tick: float = 1.0,
    observer: Observer | None = None,
    cluster: Cluster | None = None,
) -> Trainer:
    """Return a trainer whose clock advances twice a step, and whose ending takes 10 seconds."""
    budget = TimeBudget(Clock(tick))
    budget.limit(task.hyperparameters.max_minutes or math.inf, lambda _: 10.0)
    return Trainer(
        task,
        arithmetic=FLOAT32,
        cluster=cluster or Cluster(0, 1),
        observer=observer,
        budget=budget,
    )


def checkpoints_of(directory: Path) -> Checkpoints:
    return Checkpoints(directory, "a" * 12, math.inf)


def test_without_a_limit_nothing_ends() -> None:
    budget = TimeBudget()

    assert not budget.is_limited
    assert budget.quantization_seconds() == math.inf
    assert budget.sentence() == ""


def test_the_schedule_follows_the_clock() -> None:
    clock = Clock()
    budget = budget_of(10, clock, lambda _: 60.0)
    clock.now = 40

    fractions = fractions_of(budget, clock, lambda _: 1.0)

    assert 498 <= len(fractions) <= 500
    assert fractions[250] == pytest.approx(0.5, abs=0.002)
    assert fractions[-1] == pytest.approx(1, abs=0.004)


@pytest.mark.parametrize(("before", "after"), [(1.0, 5.0), (5.0, 1.0)])
def test_the_schedule_ends_in_time_on_a_machine_that_changes(before: float, after: float) -> None:
    clock = Clock()
    budget = budget_of(10, clock, lambda _: 60.0)

    fractions = fractions_of(budget, clock, lambda _: before if clock.now < 200 else after)

    assert 535 <= clock.now <= 540
    changes = [right - left for left, right in itertools.pairwise(fractions)]
    assert min(changes[1:]) > 0
    assert max(changes) < 0.02
    assert fractions[-1] > 0.98


def test_evaluations_are_a_part_of_the_time() -> None:
    clock = Clock()
    budget = budget_of(10, clock, lambda evaluation: 60.0 + (evaluation or 0.0))

    def seconds(step: int) -> float:
        if step % 10 == 0:
            with budget.evaluation():
                clock.now += 5
        return 1.0

    fractions = fractions_of(budget, clock, seconds)

    # With the last evaluation.
    assert 590 - 15 <= clock.now + 60 + 5 <= 600
    assert fractions[len(fractions) // 2] == pytest.approx(0.5, abs=0.02)


def test_a_restarted_job_continues_the_schedule_with_the_time_that_is_left() -> None:
    clock = Clock()
    first = budget_of(10, clock, lambda _: 60.0)
    clock.now = 200
    first.fraction = 0.4
    second = budget_of(10, clock, lambda _: 60.0)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))

    assert second.used_seconds == 200
    assert second.sentence() == "6.7 of 10 minutes left"
    # The time of a restart does not change the learning rate.
    clock.now += 40
    fractions = fractions_of(second, clock, lambda _: 1.0)

    assert fractions[0] == 0.4
    assert 298 <= len(fractions) <= 300


def test_a_budget_without_time_warns_how_much_is_needed(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    budget = budget_of(1, clock, lambda _: 30.0)
    clock.now = 100

    assert fractions_of(budget, clock, lambda _: 1.0) == []

    assert "max_minutes=1 leaves no time to train the network: set it to 4 or more" in caplog.text


def test_a_run_makes_as_many_steps_as_fit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    trainer = trainer_of(make_task(8, max_minutes=1, batch_size=4))

    trainer.train(StopRequest(), checkpoints_of(tmp_path))

    epochs, steps = len(trainer.progress.history), trainer.recipe.total_steps
    assert 10 < steps < 25
    assert epochs == math.ceil(steps / 2)
    assert 45 < trainer.budget.used_seconds < 55
    assert "max_minutes: 0.2 of 1 minutes left" in caplog.text
    assert "early_stopping" not in caplog.text


def test_a_stopped_run_continues_its_budget(tmp_path: Path) -> None:
    task = make_task(8, max_minutes=1, batch_size=4)
    first = trainer_of(task)
    first.train(StopAfter(5), checkpoints_of(tmp_path))
    second = trainer_of(replace(task, network=make_task().network))

    second.train(StopRequest(), checkpoints_of(tmp_path))

    assert 0 < first.budget.fraction < 0.5
    assert (first.progress.epoch, first.progress.batch) == (1, 2)
    assert second.progress.history[: first.progress.epoch] == first.progress.history
    assert second.budget.fraction == 1
    assert 45 < second.budget.used_seconds < 55


def test_a_job_that_is_restarted_after_its_last_step_has_their_number(tmp_path: Path) -> None:
    task = make_task(8, max_minutes=1, batch_size=4)
    first, second = trainer_of(task), trainer_of(replace(task, network=make_task().network))
    first.train(StopRequest(), checkpoints_of(tmp_path))

    second.train(StopRequest(), checkpoints_of(tmp_path))

    assert second.recipe.total_steps == first.recipe.total_steps


def test_a_stop_in_the_last_evaluation_repeats_it(tmp_path: Path) -> None:
    task = make_task(20, max_minutes=1, batch_size=2)
    whole, reads = trainer_of(task, tick=3), StopAfter(1000)
    whole.train(reads, checkpoints_of(tmp_path / "whole"))
    task = replace(task, network=make_task().network)
    first = trainer_of(task, tick=3)
    first.train(StopAfter(999 - reads.reads), checkpoints_of(tmp_path))
    second = trainer_of(replace(task, network=make_task().network), tick=3)

    second.train(StopRequest(), checkpoints_of(tmp_path))

    assert first.budget.fraction == 1
    assert first.progress.epoch == second.progress.epoch - 1 == whole.progress.epoch - 1


def test_a_run_from_scratch_without_time_makes_one_step(tmp_path: Path) -> None:
    trainer = trainer_of(make_task(8, max_minutes=1, batch_size=4), tick=40)

    trainer.train(StopRequest(), checkpoints_of(tmp_path))

    assert len(trainer.progress.history) == 1
    assert trainer.progress.best is not None


@pytest.mark.parametrize("fine_tuning", ["staged", "full", "none"])
def test_the_head_is_kept_if_there_is_no_time_for_fine_tuning(
    tmp_path: Path, fine_tuning: str, caplog: pytest.LogCaptureFixture
) -> None:
    task = make_task(20, max_minutes=1, head_epochs=2, fine_tuning=fine_tuning)
    trainer = trainer_of(replace(task, weights_source="weights"), tick=40)

    trainer.train(StopRequest(), checkpoints_of(tmp_path))

    assert trainer.progress.history == []
    assert trainer.result().best is not None
    trainer.budget.log_shortage(trainer.recipe.total_steps, 1)
    assert "max_minutes=1 was too short: only the head was trained; set it to " in caplog.text


class TrainedLayers(Observer):
    """Records before each step whether the first layer is trained."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.first, self.steps = next(network.parameters()), list[bool]()

    def begin_step(self, step: int, epoch: int) -> None:
        super().begin_step(step, epoch)
        self.steps.append(self.first.requires_grad)


def test_all_layers_are_trained_after_a_third_of_the_time_within_an_epoch(tmp_path: Path) -> None:
    task = make_task(60, max_minutes=1, batch_size=2, head_epochs=1, fine_tuning="staged")
    task = replace(task, weights_source="weights")
    observer = TrainedLayers(task.network.module)
    trainer = trainer_of(task, tick=1, observer=observer)

    trainer.train(StopRequest(), checkpoints_of(tmp_path))

    assert len(trainer.progress.history) == 1
    frozen = observer.steps.index(True)
    assert frozen / len(observer.steps) == pytest.approx(1 / 3, abs=0.1)
    assert all(observer.steps[frozen:])


class SecondRank(Cluster):
    """A rank that receives the positions of the first one."""

    def from_first(self, state: StateT) -> StateT:
        if isinstance(state, float):
            return min(1.0, state + 0.25)  # type: ignore[return-value]
        return state


def test_the_clock_of_the_first_rank_decides(tmp_path: Path) -> None:
    task = make_task(8, max_minutes=1, batch_size=4)
    trainer = trainer_of(task, cluster=SecondRank(1, 1))

    trainer.train(StopRequest(), checkpoints_of(tmp_path))

    assert trainer.budget.fraction == 1
    assert trainer.recipe.total_steps == 3


def test_a_job_writes_its_results_within_the_budget(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(Tracker, "__exit__", lambda *_: job.logger.info("uploaded"))
    environment = TrainingEnvironment(base_dir=make_job(tmp_path, max_minutes="1", epochs="1"))

    job.run(environment, StopRequest(), TimeBudget(Clock(2)))

    assert "as many steps as fit into max_minutes=1 of one cycle" in caplog.text
    assert "minutes for steps, then about" in caplog.text
    assert re.search(
        r"max_minutes=1 was too short: training had \d+ of at least 100 steps; set it to 2 or more",
        caplog.text,
    )
    assert caplog.text.rstrip().endswith("of 1 minutes used")
    report = json.loads((tmp_path / "output/data/metrics.json").read_text())
    assert len(report["history"]) > 1
    opt_ml.create(tmp_path)
    assert not list(environment.checkpoint_dir.iterdir())


@pytest.mark.parametrize(
    ("calibration", "is_finished"), [({"temperature": 1}, True), (None, False)]
)
def test_a_run_that_was_stopped_within_its_budget_is_continued(
    tmp_path: Path, calibration: object, *, is_finished: bool
) -> None:
    checkpoint = tmp_path / "checkpoints" / f"{'a' * 12}-step-000000001.pt"
    provenance = {"hyperparameters": {"max_minutes": 5.0, "epochs": 5}}
    files: dict[Path, Any] = {
        checkpoint: {},
        tmp_path / "model/manifest.json": {"provenance": provenance},
        tmp_path / "output/data/metrics.json": {"history": [], "calibration": calibration},
    }
    for path, content in files.items():
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(content))

    opt_ml.create(tmp_path)

    assert checkpoint.exists() is not is_finished


def test_the_expected_time_includes_int8_and_the_test_images() -> None:
    task = make_task(20, quantize="none")
    expected = {
        name: ExpectedTime.of(each, torch.device("cpu"), 4.0)
        for name, each in {
            "float32": task,
            "int8": replace(task, hyperparameters=Hyperparameters(network="small")),
            "test": replace(task, test=task.training),
        }.items()
    }

    assert expected["int8"].fixed_seconds == 2 * expected["float32"].fixed_seconds
    assert expected["int8"].inferences > expected["float32"].inferences == 0
    assert expected["test"](10.0) - expected["float32"](10.0) == pytest.approx(14)
    assert expected["float32"](None) > expected["float32"].fixed_seconds


def test_the_quantization_may_exceed_the_budget_a_little() -> None:
    clock = Clock()
    budget = budget_of(10, clock, lambda _: 60.0)
    clock.now = 600

    assert budget.quantization_seconds() == pytest.approx(TOLERANCE * 600)
    clock.now = 900
    assert budget.quantization_seconds() == 0


def test_checkpoints_of_versions_without_max_minutes_remain_usable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task, hashed = make_task(), list[bytes]()
    limited = replace(task, hyperparameters=replace(task.hyperparameters, max_minutes=3))
    sha256 = hashlib.sha256

    def record(data: bytes) -> object:
        hashed.append(data)
        return sha256(data)

    monkeypatch.setattr(hashlib, "sha256", record)

    assert fingerprint(limited, 1) != fingerprint(task, 1)

    assert b"max_minutes=3, " in hashed[0]
    assert hashed[0].replace(b"max_minutes=3, ", b"") == hashed[1]


def test_half_size_steps_need_a_known_number_of_steps() -> None:
    with pytest.raises(UserError, match=r"half_size_steps and max_minutes .* drop one of them"):
        Hyperparameters(max_minutes=3, half_size_steps=0.5)
