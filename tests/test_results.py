"""The results of the real program: reports, the test channel and min_accuracy."""

import json
import re
import signal
from pathlib import Path

import numpy as np
import pytest

from container.classifier.artifact import Artifact
from container.training.output import results
from tests.opt_ml import (
    HYPERPARAMETERS,
    configure,
    failure,
    make_job,
    square,
    train_here,
    training,
    wait_for,
    write_images,
)

CHANNELS = ("training", "validation", "test")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job with all three channels."""
    return make_whole_job(tmp_path)


def make_whole_job(base_dir: Path, **hyperparameters: str) -> Path:
    make_job(base_dir)
    data = base_dir / "input" / "data"
    write_images(data / "validation", per_class=4, first=100)
    write_images(data / "test", per_class=5, first=200)
    configure(base_dir, HYPERPARAMETERS | hyperparameters, *CHANNELS)
    return base_dir


def report(base_dir: Path) -> dict[str, object]:
    path = base_dir / "output" / "data" / "metrics.json"
    document: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    return document


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base_dir = make_whole_job(tmp_path_factory.mktemp("finished"))
    assert train_here(base_dir, "train") == 0
    return base_dir


def test_all_reports_are_written(finished: Path) -> None:
    names = {path.name for path in (finished / "output" / "data").iterdir()}

    assert names == {
        "metrics.json",
        "report.html",
        "debug",
        "debug-report.html",
        "debug-rules.json",
        "learning_curves.png",
        "confusion_matrix.png",
        "reliability.png",
    }


def test_manifest_and_metrics_file_agree(finished: Path) -> None:
    in_manifest, written = Artifact.read(finished / "model").manifest.metrics, report(finished)

    assert {name: written[name] for name in in_manifest} == in_manifest
    assert written.keys() - in_manifest.keys() == {
        "confusion",
        "confused_classes",
        "test_confusion",
        "test_confused_classes",
        "history",
    }
    assert {"epoch", "val_loss", "val_accuracy", "val_accuracy_interval_95", "classes"} <= set(
        in_manifest
    )


def test_confusion_matrix_of_many_classes_is_a_list_of_the_confused_classes() -> None:
    confusion = np.diag(np.full(2000, 5))
    confusion[7, 3], confusion[1999, 0] = 2, 4
    names = [f"class {number}" for number in range(2000)]

    many = results._confusions("test_", confusion, names)
    few = results._confusions("", confusion[:8, :8], names[:8])

    assert many == {
        "test_confusion": None,
        "test_confused_classes": [
            {"class_name": "class 1999", "predicted": "class 0", "images": 4},
            {"class_name": "class 7", "predicted": "class 3", "images": 2},
        ],
    }
    assert few["confusion"] == confusion[:8, :8].tolist()
    assert few["confused_classes"] == [
        {"class_name": "class 7", "predicted": "class 3", "images": 2}
    ]


def test_the_temperature_is_in_the_manifest(finished: Path) -> None:
    manifest = Artifact.read(finished / "model").manifest

    assert isinstance(manifest.metrics["calibration"], dict)
    assert manifest.temperature == manifest.metrics["calibration"]["temperature"]


def test_the_test_channel_has_a_separate_key(finished: Path) -> None:
    manifest = Artifact.read(finished / "model").manifest
    judged = manifest.metrics["test"]

    assert isinstance(judged, dict)
    assert {"test_loss", "test_accuracy", "test_balanced_accuracy", "test_f1"} <= judged.keys()
    assert isinstance(judged["classes"], dict)
    assert {name: c["images"] for name, c in judged["classes"].items()} == {  # type: ignore[index, call-overload]
        "blue": 5,
        "green": 5,
        "red": 5,
    }
    assert re.fullmatch("[0-9a-f]{64}", str(manifest.provenance["test_data_sha256"]))


def test_the_test_channel_does_not_change_the_weights(finished: Path, tmp_path: Path) -> None:
    other = make_whole_job(tmp_path)
    configure(other, HYPERPARAMETERS, "training", "validation")

    assert train_here(other, "train") == 0
    with_test = Artifact.read(finished / "model")
    without = Artifact.read(other / "model")
    assert without.manifest.metrics == {**with_test.manifest.metrics, "test": None}
    assert without.manifest.temperature == with_test.manifest.temperature
    assert (other / "model/weights.safetensors").read_bytes() == (
        finished / "model/weights.safetensors"
    ).read_bytes()


def test_unknown_classes_in_the_test_channel_are_rejected_first(
    job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = job / "input" / "data" / "test"
    (test / "red").rename(test / "purple")

    assert train_here(job, "train") == 1
    assert failure(job) == (
        "the test channel has classes that training lacks: purple; training has blue, green, red"
    )
    assert "epoch=1" not in capsys.readouterr().out


def test_broken_test_images_are_rejected_first(
    job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (job / "input" / "data" / "test" / "red" / "200.png").write_bytes(b"no image")

    assert train_here(job, "train") == 1
    assert failure(job).startswith("1 of 15 images cannot be read, more than 5%: ")
    assert "epoch=1" not in capsys.readouterr().out


def test_a_test_channel_may_lack_classes(job: Path) -> None:
    test = job / "input" / "data" / "test"
    for path in (test / "red").iterdir():
        path.write_bytes(square("green", 300))
    (test / "red").rename(test / "green" / "more")

    assert train_here(job, "train") == 0
    judged = report(job)["test"]
    assert isinstance(judged, dict)
    assert judged["classes"]["red"]["recall_interval_95"] == [0, 1]


def test_low_accuracy_fails_the_job_and_keeps_its_results(
    tmp_path: Path,
) -> None:
    # One image has a wrong label, so that no classifier reaches 100 %.
    job = make_whole_job(tmp_path, min_accuracy="1")
    (job / "input/data/test/red/200.png").write_bytes(square("blue", 300))

    assert train_here(job, "train") == 1

    reports = job / "output" / "data"
    assert re.fullmatch(
        r"the accuracy on the test images is 0\.\d+ \(95 % confidence: 0\.\d+ to [01]\.\d+\), "
        rf"less than min_accuracy=1: {reports}/report.html shows the mistakes",
        failure(job),
    )
    assert Artifact.read(job / "model").manifest.metrics["test"]
    page = (reports / "report.html").read_text(encoding="utf-8")
    assert "missed: the job failed" in page


def test_sufficient_accuracy_does_not_fail_the_job(tmp_path: Path) -> None:
    job = make_whole_job(tmp_path, min_accuracy="0.01")

    assert train_here(job, "train") == 0
    assert not (job / "output" / "failure").exists()


def test_a_stopped_job_writes_its_model_without_assessment(
    tmp_path: Path,
) -> None:
    job = make_whole_job(
        tmp_path, min_accuracy="1", epochs="10000", checkpoint_interval_seconds="86400"
    )
    for channel in ("validation", "test"):
        (job / "input/data" / channel / "red/red.png").write_bytes(square("blue", 300))

    with training(job) as process:
        wait_for(process, r"\bepoch=2 ")
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate()

    assert process.returncode == 0, output
    assert not (job / "output" / "failure").exists()
    manifest = Artifact.read(job / "model").manifest
    assert manifest.temperature == 1
    assert manifest.metrics["test"] is None
    assert isinstance(manifest.metrics["val_accuracy"], float)
    assert manifest.metrics["val_accuracy"] < 1
    page = (job / "output/data/report.html").read_text(encoding="utf-8")
    assert "The job was stopped before it finished" in page


@pytest.mark.parametrize(
    "changed", [{"min_accuracy": "0.01"}, {"quantize": "auto", "max_accuracy_drop": "1"}]
)
def test_other_assessment_settings_continue_from_the_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, str]
) -> None:
    settings = {"epochs": "2", "checkpoint_interval_seconds": "0"}
    job = make_whole_job(tmp_path, **settings)
    assert train_here(job, "train") == 0
    capsys.readouterr()
    configure(job, HYPERPARAMETERS | settings | changed, *CHANNELS)

    assert train_here(job, "train") == 0
    log = capsys.readouterr().out
    assert "continued_from=" in log
    assert "\nepoch=" not in log
