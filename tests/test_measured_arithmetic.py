"""Training measures float32 and bfloat16, and uses the faster one."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import torch

from container.classifier.artifact import Artifact
from container.classifier.preprocessing import Preprocessing
from container.networks.network import build
from container.training import device
from container.training.data.images import ImageSet
from container.training.device import Arithmetic
from container.training.fitting import measured_arithmetic, step_time
from container.training.fitting.checkpoint import Checkpoints
from container.training.fitting.cluster import Cluster
from container.training.fitting.measured_arithmetic import choose
from container.training.fitting.task import Task
from container.training.hyperparameters import Hyperparameters
from tests.opt_ml import make_job, train_here

FLOAT32, BFLOAT16 = torch.float32, torch.bfloat16

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is not measured")

Slow = Callable[[torch.dtype], None]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    """Make a CPU with instructions for bfloat16 slow in a number format, by a clock of our own."""
    now, autocast = 0.0, Arithmetic.autocast

    def make_slow(dtype: torch.dtype) -> None:
        def slow_autocast(arithmetic: Arithmetic) -> AbstractContextManager[object]:
            nonlocal now
            now += 0.5 if arithmetic.dtype is dtype else 0.4
            return autocast(arithmetic)

        monkeypatch.setattr(Arithmetic, "autocast", slow_autocast)

    for module in (device, measured_arithmetic):
        monkeypatch.setattr(module, "has_bfloat16_instructions", lambda: True)
    monkeypatch.setattr(measured_arithmetic, "MIN_PIXELS", 0)
    monkeypatch.setattr(step_time, "perf_counter", lambda: now)
    return make_slow


def make_task(images: int = 4, **settings: object) -> Task:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (images, 32, 32, 3), np.uint8)
    image_set = ImageSet(pixels, random.integers(0, 2, images), (), "")
    return Task(
        hyperparameters=Hyperparameters(network="small", **settings),  # type: ignore[arg-type]
        preprocessing=Preprocessing(image_size=32),
        class_names=("a", "b"),
        network=build("small", 2),
        weights_source=None,
        training=image_set,
        validation=image_set,
    )


def chosen(task: Task, directory: Path) -> torch.dtype:
    return choose(task, Cluster(0, 1), Checkpoints(directory, "a" * 12, 0)).dtype


@pytest.mark.parametrize(("slower", "faster"), [(FLOAT32, BFLOAT16), (BFLOAT16, FLOAT32)])
def test_the_faster_number_format_is_chosen(
    slow: Slow,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    slower: torch.dtype,
    faster: torch.dtype,
) -> None:
    caplog.set_level(logging.INFO)
    slow(slower)

    assert chosen(make_task(), tmp_path) is faster
    times = {slower: 500, faster: 400}
    found = f"cpu/float32={times[FLOAT32]}ms cpu/bfloat16={times[BFLOAT16]}ms"
    assert f"measured steps of 4 images: {found}" in caplog.messages


def test_a_set_precision_is_not_measured(
    slow: Slow, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    slow(BFLOAT16)

    assert chosen(make_task(precision="bfloat16"), tmp_path) is BFLOAT16
    assert not caplog.text


def test_a_short_job_is_not_measured(
    slow: Slow,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(measured_arithmetic, "MIN_PIXELS", 5 * 4 * 32 * 32 + 1)
    slow(BFLOAT16)

    assert chosen(make_task(epochs=5), tmp_path) is BFLOAT16
    assert not caplog.text
    assert chosen(make_task(epochs=6), tmp_path) is FLOAT32


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [("cpu/float32", FLOAT32), ("cpu/bfloat16", BFLOAT16), ("cuda/float32", BFLOAT16)],
)
def test_a_checkpoint_keeps_its_number_format(
    slow: Slow,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    recorded: str,
    expected: torch.dtype,
) -> None:
    slow(BFLOAT16)
    Checkpoints(tmp_path, "a" * 12, 0).save(1, {measured_arithmetic.STATE: recorded})
    caplog.set_level(logging.INFO)

    assert chosen(make_task(), tmp_path) is expected
    assert "measured" not in caplog.text


def test_the_measurement_changes_neither_network_nor_random_numbers(
    slow: Slow, tmp_path: Path
) -> None:
    slow(BFLOAT16)
    task = make_task()
    before = {name: value.clone() for name, value in task.network.module.state_dict().items()}
    random = torch.random.get_rng_state()

    chosen(task, tmp_path)

    after = task.network.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in task.network.module.parameters())
    assert torch.equal(random, torch.random.get_rng_state())


def test_a_job_records_the_measured_format_and_continues_in_it(
    slow: Slow, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    slow(BFLOAT16)
    base_dir = make_job(tmp_path, precision="auto", debug="off")
    assert train_here(base_dir, "train") == 0
    first = capfd.readouterr().out

    slow(FLOAT32)
    assert train_here(base_dir, "train") == 0

    again = capfd.readouterr().out
    assert "measured steps of " in first
    assert "arithmetic=cpu/float32" in first
    assert "measured steps of " not in again
    assert "arithmetic=cpu/float32" in again
    manifest = Artifact.read(base_dir / "model").manifest
    assert manifest.provenance["arithmetic"] == "cpu/float32"
