"""Training measures all compute threads and half of them, and uses the faster number."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from container.training.device import Arithmetic
from container.training.fitting import measured_threads
from container.training.fitting.checkpoint import Checkpoints
from container.training.fitting.cluster import Cluster
from container.training.fitting.loop import Trainer
from container.training.fitting.measured_threads import INTERVAL_SECONDS, STATE, ComputeThreads
from container.training.sagemaker.stop import StopRequest
from container.training.sagemaker.supervisor import THREADS_VARIABLE
from tests.opt_ml import make_job, train_here
from tests.test_measured_arithmetic import make_task

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is not measured")

Machine = Callable[[float, float], None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Have two threads, and a clock that advances by the seconds of a measured convolution."""
    now, seconds, forward = 0.0, {2: 0.001, 1: 0.002}, nn.Conv2d.forward

    def slow_forward(convolution: nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
        nonlocal now
        if images.shape != measured_threads.SHAPE:
            return forward(convolution, images)
        now += seconds[torch.get_num_threads()]
        return images

    def set_seconds(with_all: float, with_half: float) -> None:
        nonlocal now
        now += INTERVAL_SECONDS
        seconds.update({2: with_all, 1: with_half})

    monkeypatch.delenv(THREADS_VARIABLE, raising=False)
    monkeypatch.setattr(nn.Conv2d, "forward", slow_forward)
    monkeypatch.setattr(measured_threads, "perf_counter", lambda: now)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield set_seconds
    torch.set_num_threads(before)


def test_half_of_the_threads_are_used_while_they_are_faster(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    threads, found = ComputeThreads(is_measured=True), []

    for seconds in [(0.001, 0.002), (0.005, 0.002), (0.001, 0.002)]:
        machine(*seconds)
        threads.choose()
        found.append(torch.get_num_threads())

    assert found == [2, 1, 2]
    measured = "measured compute threads"
    assert caplog.messages == [
        f"{measured}: 2=80.0ms 1=32.0ms, other programs use the CPUs",
        f"{measured}: 2=16.0ms 1=32.0ms, no other program uses the CPUs",
    ]


def test_a_measurement_is_not_repeated_at_once(machine: Machine) -> None:
    threads = ComputeThreads(is_measured=True)
    machine(0.005, 0.002)
    threads.choose()
    torch.set_num_threads(2)

    threads.choose()

    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("reason", ["set by the user", "seed", "one CPU"])
def test_a_number_that_is_given_is_not_measured(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    count = 1 if reason == "one CPU" else 2
    torch.set_num_threads(count)
    if reason == "set by the user":
        monkeypatch.setenv(THREADS_VARIABLE, "2")
    threads = ComputeThreads(is_measured=reason != "seed")
    machine(0.005, 0.002)

    threads.choose()
    threads.restore({STATE: 1})

    assert torch.get_num_threads() == count


@pytest.mark.parametrize(("recorded", "expected"), [(1, 1), (16, 2), (None, 2)])
def test_a_checkpoint_keeps_its_number(
    machine: Machine, recorded: int | None, expected: int
) -> None:
    threads = ComputeThreads(is_measured=True)
    machine(0.001, 0.002)
    threads.choose()

    threads.restore({STATE: recorded})

    assert torch.get_num_threads() == expected


def test_a_measurement_precedes_each_checkpoint(machine: Machine, tmp_path: Path) -> None:
    task = make_task(precision="float32", epochs=1)
    arithmetic = Arithmetic.choose("float32", task.hyperparameters.network)
    threads = ComputeThreads(is_measured=True)
    machine(0.005, 0.002)
    checkpoints = Checkpoints(tmp_path, "a" * 12, 0)
    trainer = Trainer(task, arithmetic=arithmetic, cluster=Cluster(0, 1), threads=threads)

    trainer.train(StopRequest(), checkpoints)

    assert torch.get_num_threads() == 1
    assert (checkpoints.newest or {})[STATE] == 1


def test_the_measurement_changes_no_random_numbers(machine: Machine) -> None:
    machine(0.005, 0.002)
    state = torch.random.get_rng_state()

    ComputeThreads(is_measured=True).choose()

    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_job_measures_its_threads_and_continues_with_their_number(
    machine: Machine, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    base_dir = make_job(tmp_path, precision="auto", debug="off", quantize="none")
    machine(0.005, 0.002)
    assert train_here(base_dir, "train") == 0
    first = capfd.readouterr().out

    torch.set_num_threads(2)
    machine(0.001, 0.002)
    assert train_here(base_dir, "train") == 0

    assert "measured compute threads: 2=80.0ms 1=32.0ms" in first
    assert "cpu_threads=1 " in first
    assert "cpu_threads=1 " in capfd.readouterr().out
