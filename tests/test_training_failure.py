"""The failure file of a job: items 2 and 8 of the contract's checklist."""

import os
import subprocess
import sys
from pathlib import Path

from container.classifier.artifact import Artifact
from container.classifier.locks import locked
from tests.opt_ml import HYPERPARAMETERS, configure, failure, make_job, train, train_here

# A second thread, as libraries start them, receives signals that the first one blocks; modules are
# taken apart last of all.
STOPPED_AT_THE_END = """
import os, runpy, signal, sys, threading, time

class Stop:
    def __del__(self, kill=os.kill, arguments=(os.getpid(), signal.SIGTERM)):
        kill(*arguments)

sys.modules["stop_at_the_end"] = Stop()
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
runpy.run_module("container.training", run_name="__main__")
"""


def test_2_missing_channels_are_reported_in_the_failure_file(tmp_path: Path) -> None:
    configure(tmp_path, HYPERPARAMETERS)

    code, output = train(tmp_path)

    assert code == 1
    assert failure(tmp_path).startswith("no channel called 'training'; found: none")
    assert "Traceback" not in failure(tmp_path) + output


def test_2_missing_files_are_reported_in_the_failure_file(tmp_path: Path) -> None:
    code, output = train(tmp_path)

    assert code == 1
    assert failure(tmp_path).startswith(f"no {tmp_path}/input/config/hyperparameters.json")
    assert "Traceback" not in failure(tmp_path) + output


def test_a_second_training_leaves_no_failure_in_the_folder_of_the_first(tmp_path: Path) -> None:
    with locked(tmp_path):
        code, output = train(tmp_path)

    assert (code, (tmp_path / "output").exists()) == (1, False)
    assert "another training is running" in output


def test_8_the_failure_starts_with_one_short_sentence(tmp_path: Path) -> None:
    make_job(tmp_path, network="resnet_18")

    code, _ = train(tmp_path)

    assert code == 1
    # SageMaker keeps 1,024 characters, its own prefix among them.
    assert len(failure(tmp_path)) <= 950
    assert failure(tmp_path).startswith("unknown network 'resnet_18'; known are small, ")


def test_8_the_message_of_an_error_precedes_its_traceback(tmp_path: Path) -> None:
    make_job(tmp_path)
    (tmp_path / "model").write_text("in the way")

    assert train_here(tmp_path, "train") == 1
    assert failure(tmp_path).startswith("FileExistsError: ")
    assert "\nTraceback (most recent call last)" in failure(tmp_path)
    assert len(failure(tmp_path)) <= 950


def test_a_stop_while_python_exits_keeps_the_exit_code(tmp_path: Path) -> None:
    environment = {**os.environ, "SAGEMAKER_BASE_DIR": str(tmp_path)}

    ended = subprocess.run([sys.executable, "-c", STOPPED_AT_THE_END], env=environment, check=False)

    # That of a job without files.
    assert ended.returncode == 1


def test_the_model_is_kept_if_reports_cannot_be_written(tmp_path: Path) -> None:
    make_job(tmp_path)
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "data").write_text("in the way")

    code, output = train(tmp_path)

    assert code == 0, output
    assert "not all reports are written: " in output
    assert Artifact.read(tmp_path / "model")


def test_8_a_successful_run_removes_the_failure_of_an_earlier_one(tmp_path: Path) -> None:
    base_dir = make_job(tmp_path)
    (base_dir / "output").mkdir()
    (base_dir / "output" / "failure").write_text("an earlier run's")

    assert train_here(base_dir, "train") == 0
    assert not (base_dir / "output" / "failure").exists()
