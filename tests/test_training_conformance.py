"""SageMaker's contract for a training container, line by line, against the real program.

The numbers in the names are those of the contract's checklist. Stops, restarts and several hosts
(9, 10, 11) stand in `test_training_restart.py`, failures (2, 8) in `test_training_failure.py`.
"""

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from container.classifier.artifact import Artifact
from container.classifier.metric_lines import METRIC_DEFINITIONS
from container.classifier.preprocessing import preprocess
from container.training.__main__ import main
from tests.opt_ml import (
    IS_ROOT,
    configure,
    failure,
    make_job,
    metrics,
    needs_unshare,
    square,
    train,
    train_here,
    training,
    write_images,
)
from tests.served import answers
from tests.servers import serving

# Encodings of section 1.5 of the contract: Python's str(), json.dumps, and plain text.
ODDLY_ENCODED = {
    "network": '"small"',
    "image_size": "16.0",
    "epochs": "3",
    "batch_size": " 8 ",
    "optimizer": "'adamw'",
    "learning_rate": "None",
    "augment": "True",
    "horizontal_flip": '"true"',
    "vertical_flip": "false",
    "pretrained": "null",
    "weight_decay": "1e-3",
    "precision": "float32",
}
FOREIGN = {
    "_tuning_objective_metric": "val_accuracy",
    "sagemaker_estimator_class_name": '"Estimator"',
    "sagemaker_program": '"train.py"',
    "sagemaker_region": '"eu-west-1"',
    "sagemaker_job_name": '"job"',
    "default_user_module_name": "x",
}


class Job(NamedTuple):
    base_dir: Path
    output: str


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job as a tuner sends it, run to its end by the command that SageMaker uses."""
    base_dir = tmp_path_factory.mktemp("job")
    data = base_dir / "input" / "data"
    write_images(data / "training")
    write_images(data / "validation", per_class=4, first=100)
    write_images(data / "test", per_class=3, first=200)
    # Files of real jobs next to their channels.
    (data / "training-manifest").write_text("[]")
    write_images(data / "not_a_channel", classes=("blue",), per_class=1)
    configure(base_dir, ODDLY_ENCODED | FOREIGN, "training", "validation", "test")
    code, output = train(base_dir, "train", CUDA_VISIBLE_DEVICES="")
    assert code == 0, output
    return Job(base_dir, output)


def test_1_train_trains_and_exits_with_0(finished: Job) -> None:
    assert (finished.base_dir / "model" / "manifest.json").is_file()
    assert not (finished.base_dir / "output" / "failure").exists()


@pytest.mark.parametrize("arguments", [(), ("train", "--verbose"), ("--epochs", "3")])
def test_1_no_argument_and_container_arguments_train_as_well(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    base_dir = make_job(tmp_path)

    assert train_here(base_dir, *arguments) == 0
    assert Artifact.read(base_dir / "model").manifest.class_names == ("blue", "green", "red")


def test_3_every_encoding_of_a_hyperparameter_is_read(finished: Job) -> None:
    hyperparameters = Artifact.read(finished.base_dir / "model").manifest.provenance[
        "hyperparameters"
    ]

    assert isinstance(hyperparameters, dict)
    assert {name: hyperparameters[name] for name in ODDLY_ENCODED} == {
        "network": "small",
        "image_size": 16,
        "epochs": 3,
        "batch_size": 8,
        "optimizer": "adamw",
        "learning_rate": None,
        "augment": True,
        "horizontal_flip": True,
        "vertical_flip": False,
        "pretrained": None,
        "weight_decay": 0.001,
        "precision": "float32",
    }


@pytest.mark.parametrize("name", FOREIGN)
def test_4_hyperparameters_of_tuners_and_toolkits_are_ignored(finished: Job, name: str) -> None:
    assert name not in finished.output


def test_5_the_channels_are_those_of_inputdataconfig_and_no_other_folder(finished: Job) -> None:
    assert "training_images=30 validation_images=12" in finished.output
    assert "not_a_channel" not in finished.output


@needs_unshare
def test_5_channels_and_configuration_may_be_mounted_read_only(tmp_path: Path) -> None:
    base_dir = make_job(tmp_path)
    mounts = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"'
    before = ("unshare", "--mount", "sh", "-c", mounts, "sh", str(base_dir / "input"))

    code, output = train(base_dir, before=before)

    assert code == 0, output
    assert Artifact.read(base_dir / "model")


@pytest.mark.skipif(IS_ROOT, reason="root may write everywhere")
def test_5_channels_may_be_folders_without_the_right_to_write(tmp_path: Path) -> None:
    base_dir = make_job(tmp_path)
    folders = [path for path in (base_dir / "input").rglob("*") if path.is_dir()]
    for folder in folders:
        folder.chmod(0o555)

    assert train_here(base_dir, "train") == 0
    for folder in folders:
        folder.chmod(0o755)


def test_6_optional_files_may_be_missing(finished: Job) -> None:
    names = {path.name for path in (finished.base_dir / "input" / "config").iterdir()}

    assert names == {"hyperparameters.json", "inputdataconfig.json"}
    assert "processes=1" in finished.output


def test_6_the_platforms_own_files_are_ignored(tmp_path: Path) -> None:
    base_dir = make_job(tmp_path)
    for name in ("init-config", "metric-definition-regex", "trainingjobconfig", "debughookconfig"):
        (base_dir / "input" / "config" / f"{name}.json").write_text("{")

    assert train_here(base_dir, "train") == 0


def test_7_the_served_network_reproduces_the_golden_answers(finished: Job) -> None:
    artifact = Artifact.read(finished.base_dir / "model")
    settings = artifact.manifest.preprocessing
    pixels = np.stack([preprocess(golden.data, settings) for golden in artifact.golden_answers])
    expected = np.array([golden.probabilities for golden in artifact.golden_answers])

    assert expected.shape == (8, 3)
    assert np.abs(answers(artifact.onnx_model, pixels) - expected).max() < 1e-3


def test_7_the_serving_program_serves_the_artifact(finished: Job) -> None:
    with serving(finished.base_dir) as server:
        response = server.invoke(square("red", 1000), "image/png")

    assert response.status == 200
    assert json.loads(response.body)["predictions"][0]["class_name"] == "red"


def test_7_a_kill_while_writing_keeps_the_earlier_artifact(finished: Job, tmp_path: Path) -> None:
    base_dir = make_job(tmp_path)
    model = base_dir / "model"
    model.mkdir()
    for path in (finished.base_dir / "model").rglob("*"):
        if path.is_file():
            target = model / path.relative_to(finished.base_dir / "model")
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())

    with training(base_dir) as process:
        while process.poll() is None and not list(model.glob(".partial-*")):
            time.sleep(0.005)
        process.kill()
        process.wait()

    assert list(model.glob(".partial-*"))
    assert Artifact.read(model).manifest == Artifact.read(finished.base_dir / "model").manifest
    assert train_here(base_dir, "train") == 0
    assert not list(model.glob(".partial-*"))


@pytest.mark.parametrize("definition", METRIC_DEFINITIONS, ids=lambda d: str(d["Name"]))
def test_12_each_regex_matches_its_metric_once_per_epoch(
    finished: Job, definition: dict[str, str]
) -> None:
    expression = re.compile(definition["Regex"])
    history = metrics(finished.base_dir)["history"]

    found = list(_values(expression, finished.output))

    assert expression.groups == 1
    assert len(definition["Regex"]) <= 500
    # The metrics of the best epoch are logged again at the end, those of the test channel once.
    times = {"val": 4, "test": 1}
    assert len(found) == times.get(definition["Name"].partition("_")[0], 3)
    assert isinstance(history, list)
    if definition["Name"] in history[0]:
        expected = [epoch[definition["Name"]] for epoch in history]
        assert found[:3] == pytest.approx(expected, rel=1e-4)


def test_12_the_last_value_of_the_objective_is_the_best_epochs(finished: Job) -> None:
    expression = re.compile(r"\bval_accuracy=([-+0-9.eE]+)")
    last = list(_values(expression, finished.output))[-1]
    kept = Artifact.read(finished.base_dir / "model").manifest.metrics

    assert last == pytest.approx(kept["val_accuracy"], rel=1e-4)
    assert last == pytest.approx(max(_values(expression, finished.output)))


@needs_unshare
def test_13_a_job_needs_no_network_and_no_credentials(tmp_path: Path) -> None:
    base_dir = make_job(tmp_path)
    credentials = [f"--unset={name}" for name in os.environ if name.startswith("AWS_")]

    code, output = train(base_dir, before=("unshare", "--net", "env", *credentials))

    assert code == 0, output


@needs_unshare
def test_13_without_internet_the_weights_channel_is_suggested(tmp_path: Path) -> None:
    base_dir = make_job(tmp_path, network="resnet18", image_size="32")

    code, output = train(base_dir, before=("unshare", "--net"), TORCH_HOME=str(tmp_path / "cache"))

    assert code == 1
    assert failure(base_dir).startswith(
        "the pretrained weights of resnet18 cannot be downloaded (<urlopen error"
    )
    assert "`weights` channel" in failure(base_dir)
    assert "network=small" in failure(base_dir)
    assert "Traceback" not in failure(base_dir) + output


def test_14_a_host_without_a_gpu_trains_on_its_cpu(finished: Job) -> None:
    assert "arithmetic=cpu/float32" in finished.output


def test_15_the_configuration_folder_may_be_for_root_only(tmp_path: Path) -> None:
    base_dir = make_job(tmp_path)
    config = base_dir / "input" / "config"
    config.chmod(0o644)

    code = train_here(base_dir, "train")

    config.chmod(0o755)
    if IS_ROOT:
        assert code == 0
    else:
        assert "Permission denied" in failure(base_dir)


def test_help_describes_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "Run the training job in /opt/ml" in capsys.readouterr().out


def _values(expression: re.Pattern[str], log: str) -> Iterator[float]:
    return (float(match[1]) for line in log.splitlines() if (match := expression.search(line)))
