"""Failed and stopped jobs keep an earlier artifact and their best epoch."""

import math
import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from PIL import Image

from container.classifier.artifact import Artifact
from container.classifier.environment import CACHE_DIR_VARIABLE
from tests.opt_ml import (
    HYPERPARAMETERS,
    configure,
    failure,
    make_job,
    needs_unshare,
    train,
    train_here,
    training,
)

# The loss is finite for an epoch or more, then NaN.
DIVERGING = {"learning_rate": "100", "optimizer": "sgd", "epochs": "100"}

# An artifact of the small network has 13 MB.
MOUNT = 'mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2'


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base_dir = make_job(tmp_path_factory.mktemp("trained"))
    assert train_here(base_dir, "train") == 0
    return base_dir


@pytest.fixture
def again(trained: Path, tmp_path: Path) -> Path:
    """A copy of the finished job, with its artifact, for another run."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path


@needs_unshare
def test_a_full_disk_is_reported_and_keeps_the_earlier_artifact(
    trained: Path, tmp_path: Path
) -> None:
    base_dir = make_job(tmp_path / "job")
    (base_dir / "model").mkdir()
    kept = tmp_path / "kept"
    script = (
        f'{MOUNT}; cp -r "$1/." "$2" && model=$2 kept=$3 && shift 3; '
        '"$@"; code=$?; cp -r "$model" "$kept"; exit $code'
    )
    paths = (base_dir / "model", trained / "model", base_dir / "model", kept)
    before = ("unshare", "--mount", "sh", "-c", script, "sh", "20m", *map(str, paths))

    code, output = train(base_dir, before=before)

    assert code == 1, output
    assert failure(base_dir) == (
        f"no space left for the model artifact in {base_dir / 'model'}: give the job a larger "
        "volume (volume_size); a previous artifact is unchanged"
    )
    assert "Traceback" not in output
    assert Artifact.read(kept).manifest == Artifact.read(trained / "model").manifest
    assert {path.name for path in kept.iterdir()} == {
        "golden",
        "manifest.json",
        "model.onnx",
        "weights.safetensors",
    }


@needs_unshare
def test_a_disk_too_small_for_the_pixels_is_reported(tmp_path: Path) -> None:
    base_dir = make_job(tmp_path / "job", image_size="256", batch_size="8")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    script = f'{MOUNT}; exec "$@"'
    before = ("unshare", "--mount", "sh", "-c", script, "sh", "1m", str(scratch))

    code, output = train(base_dir, before=before, SAGEMAKER_CLASSIFIER_CACHE_DIR=str(scratch))

    assert code == 1
    assert failure(base_dir) == (
        f"no room for 0.00 GB of decoded images in {scratch} (No space left on device): "
        "give the job a larger volume (volume_size) or a smaller image_size"
    )
    assert "Traceback" not in output


@needs_unshare
def test_a_disk_too_small_for_checkpoints_still_gets_a_model(tmp_path: Path) -> None:
    base_dir = make_job(tmp_path, checkpoint_interval_seconds="0")
    (base_dir / "checkpoints").mkdir()
    script = f'{MOUNT}; exec "$@"'
    paths = ("1m", str(base_dir / "checkpoints"))
    before = ("unshare", "--mount", "sh", "-c", script, "sh", *paths)

    code, output = train(base_dir, before=before)

    assert code == 0, output
    assert "no checkpoint: " in output
    assert Artifact.read(base_dir / "model")


def test_a_loss_of_nan_keeps_the_best_epoch_so_far(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    base_dir = make_job(tmp_path, **DIVERGING)

    assert train_here(base_dir, "train") == 1
    # A tuning job would read it as the result of a successful job.
    assert "best_epoch=" not in "".join(capfd.readouterr())
    assert re.fullmatch(
        r"the (training|validation) loss is (nan|inf) in epoch \d+: lower learning_rate "
        r"\(its peak is 100\)",
        failure(base_dir),
    )
    kept = Artifact.read(base_dir / "model").manifest.metrics["val_loss"]
    assert isinstance(kept, float)
    assert math.isfinite(kept)


def test_a_failed_job_keeps_the_earlier_artifact(again: Path) -> None:
    manifest = Artifact.read(again / "model").manifest
    configure(again, {**HYPERPARAMETERS, **DIVERGING}, "training")

    assert train_here(again, "train") == 1
    assert Artifact.read(again / "model").manifest == manifest


def test_a_job_without_a_finished_epoch_writes_no_artifact(tmp_path: Path) -> None:
    base_dir = make_job(
        tmp_path, **{**DIVERGING, "learning_rate": "1000", "epochs": "1", "batch_size": "4"}
    )

    assert train_here(base_dir, "train") == 1
    assert list((base_dir / "model").glob("*")) == []


def test_a_later_run_replaces_the_earlier_artifact(again: Path) -> None:
    configure(again, {**HYPERPARAMETERS, "seed": "7"}, "training")

    assert train_here(again, "train") == 0
    provenance = Artifact.read(again / "model").manifest.provenance["hyperparameters"]
    assert isinstance(provenance, dict)
    assert provenance["seed"] == 7


def test_a_stop_while_images_are_decoded_exits_with_0_and_without_a_model(tmp_path: Path) -> None:
    base_dir, cache = make_job(tmp_path), tmp_path / "cache"
    # A minute of decoding.
    large = base_dir / "input" / "data" / "training" / "blue" / "large0.png"
    Image.effect_noise((4000, 4000), 100).convert("RGB").save(large, compress_level=1)
    for number in range(1, 200):
        os.link(large, large.with_name(f"large{number}.png"))

    with training(base_dir, **{CACHE_DIR_VARIABLE: str(cache)}) as process:
        while not list(cache.glob("*.partial")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate()

    assert process.returncode == 0, output
    assert "stopped before the first step: there is no model to save" in output
    assert not (base_dir / "model").exists()
    assert not (base_dir / "output").exists()
