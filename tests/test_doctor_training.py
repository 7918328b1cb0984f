"""The doctor: each broken training fails the case of its fault and no other."""

import sys
from pathlib import Path

import pytest

from image_classifier.platform.doctor.cases import TRAIN
from image_classifier.platform.doctor.diagnosis import diagnose
from image_classifier.platform.doctor.examination import Options, TimeLimits
from image_classifier.platform.doctor.report import Report
from tests.zoo import trainings

LIMITS = TimeLimits(training_grace=1.5, job=60)

BROKEN = {
    "ExitsWith0": "train-exit-code",
    "ExitsWith0Silently": "train-exit-code",
    "FailsInThread": "train-exit-code",
    "SucceedsWithExitCode": "train-exit-code",
    "NoReason": "failure-file",
    "EmptyReason": "failure-file",
    "ReasonAfterTrace": "failure-file",
    "NumbersOnly": "hyperparameter-strings",
    "KnownNamesOnly": "hyperparameter-strings",
    "WritesChannel": "channels-read-only",
    "RemovesChannels": "channels-read-only",
    "UpperCaseReason": "failure-file",
    "NoModel": "model-artifact",
    "IgnoresSigterm": "sigterm",
    "ContinuesAfterSigterm": "sigterm",
    "SavesInPlace": "checkpoint-resume",
    "StartsAgain": "checkpoint-resume",
    "FailsWithCheckpoint": "checkpoint-resume",
    "TooMuchMemory": "memory",
    "ImportFails": "start",
}

INTERRUPTED = {
    "IgnoresSigterm",
    "ContinuesAfterSigterm",
    "SavesInPlace",
    "StartsAgain",
    "FailsWithCheckpoint",
}


def examine(name: str, ignored: list[str], **options: object) -> Report:
    return diagnose(
        None,
        [sys.executable, trainings.__file__, name],
        TRAIN,
        options=Options(memory=200 * 2**20, **options),  # type: ignore[arg-type]
        limits=LIMITS,
        ignored=ignored,
    )


@pytest.mark.parametrize(("name", "case_id"), BROKEN.items())
def test_broken_training_fails_the_case_of_its_fault(
    name: str, case_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ignored = []
    if name not in INTERRUPTED:
        # Their jobs are run again, which takes seconds.
        ignored = ["sigterm", "checkpoint-resume"]
        monkeypatch.setenv("ZOO_EPOCH_SECONDS", "0")

    report = examine(name, ignored)

    assert [*report.failed] == [case_id], report.text()


def test_healthy_training_passes_all_cases() -> None:
    report = examine("Healthy", [])

    assert report.failed == {}, report.text()
    assert {*report.skipped} == {"no-network-train", "writes-outside"}


def test_numbers_in_given_hyperparameters_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_EPOCH_SECONDS", "0")

    report = examine("NumbersOnly", ["sigterm"], hyperparameters={"epochs": "2"})

    assert [*report.failed] == ["hyperparameter-strings"]


def test_given_data_that_the_training_rejects(tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()

    report = examine("Healthy", [], data=tmp_path)

    assert [*report.failed] == ["train-exit-code"]
    assert "no file in the channels" in report.failed["train-exit-code"].evidence
    assert report.passed == ["start", "failure-file", "memory"]
