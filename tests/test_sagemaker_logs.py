"""Logs on SageMaker: streamed while a verb waits, followed, continued, and shown on a terminal."""

import sys
from pathlib import Path
from typing import Any

import pytest

from image_classifier.sagemaker import aws, logs, training
from tests.accounts import ON_ACCOUNT, StandIn, run
from tests.settings_files import TUNING, write

pytestmark = ON_ACCOUNT

EPOCH = "epoch=1 train_loss=0.5 val_loss=0.25 val_accuracy=0.9"


def event(number: int, message: str, host: str = "algo-1", time: int = 0) -> dict[str, object]:
    stream = {"eventId": str(number), "logStreamName": f"job/{host}-1700000000"}
    # All within the time that is read again.
    return stream | {"timestamp": 1_700_000_000_000 + (time or number), "message": message}


def running(stand_in: StandIn, *statuses: str) -> None:
    stand_in.answer("sagemaker.DescribeTrainingJob", *({"TrainingJobStatus": s} for s in statuses))


def test_train_prints_every_line_once(
    stand_in: StandIn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(training, "new_name", lambda _settings: "job")
    running(stand_in, "InProgress", "InProgress", "InProgress", "Completed")
    first = [event(1, "start"), event(2, "two", "algo-2")]
    stand_in.answer(
        "logs.FilterLogEvents",
        # The log group does not exist before the first line.
        "ResourceNotFoundException",
        {"events": first[:1], "nextToken": "t"},
        "ThrottlingException",
        "ThrottlingException",
        {"events": first[1:]},
        {"events": [*first, event(4, EPOCH)]},
        # A line of another host that is older than the last one.
        {"events": [*first, event(3, "late", "algo-2"), event(4, EPOCH)]},
    )

    assert run("train", write(tmp_path)) == 0

    printed = capsys.readouterr().out.splitlines()
    kept = [line for line in printed if not line.endswith(("InProgress", "Completed"))]
    assert kept[1:-1] == ["start", "algo-2: two", EPOCH, "algo-2: late"]
    assert stand_in.sent("FilterLogEvents")[2]["nextToken"] == "t"
    assert stand_in.sent("FilterLogEvents")[-1]["startTime"] == 1_700_000_000_004 - 60_000


def test_log_that_cannot_be_read_does_not_end_the_training(
    stand_in: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    running(stand_in, "InProgress", "InProgress", "Completed")
    stand_in.answer("logs.FilterLogEvents", "AccessDeniedException")

    assert run("train", write(tmp_path)) == 0

    assert capsys.readouterr().out.count("the log is not shown: AWS rejected FilterLogEvents") == 1


def test_follow_ends_with_the_job_and_continues_after_a_time(
    stand_in: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = write(tmp_path)
    running(stand_in, "InProgress", "Completed")
    stand_in.answer(
        "logs.FilterLogEvents", {"events": [event(1, "one")]}, {"events": [event(2, "two")]}
    )

    since = "2023-11-14T22:13:20+00:00"
    assert run("logs", settings, "--job", "job", "--follow", "--since", since) == 0

    assert capsys.readouterr().out == "one\ntwo\n"
    assert stand_in.sent("FilterLogEvents")[0] == {
        "logGroupName": "/aws/sagemaker/TrainingJobs",
        "logStreamNamePrefix": "job/",
        "startTime": 1_700_000_000_000,
    }


def test_interrupted_follow_names_the_time_to_continue_from(
    stand_in: StandIn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    settings = write(tmp_path)
    stand_in.answer("logs.FilterLogEvents", {"events": [event(1, "one")]})
    running(stand_in, "InProgress")
    monkeypatch.setattr("time.sleep", interrupt)

    assert run("logs", settings, "--endpoint", "--follow") == 130
    position = "--since 2023-11-14T22:13:20.001+00:00"
    assert f"stopped; continue with {position}" in capsys.readouterr().err
    assert run("train", settings) == 130
    message = capsys.readouterr().err
    assert "stopped; the job on SageMaker continues: `image-classifier logs SETTINGS" in message
    assert f"--follow {position}` shows it" in message


@pytest.mark.parametrize("option", [["--follow"], ["--since", "2026-11-29"], ["--since", "now"]])
def test_options_that_do_not_fit_are_rejected(
    option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run("logs", write(tmp_path), "--local", *option)

    expected = "'now' is not a time" if "now" in option else "are for SageMaker"
    assert expected in capsys.readouterr().err


def test_terminal_shows_a_table_of_metrics_and_hosts_in_color(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = logs.of_training(aws.Aws(region="eu-west-1"), "job")
    lines = [
        logs.Line("start", "algo-1"),
        logs.Line("epoch=1 train_loss=0.5", "algo-1"),
        logs.Line("epoch=2 train_loss=0.25", "algo-1"),
        logs.Line("a=1 is not a table", "algo-2"),
    ]
    assert [text for line in lines for text in log.texts(line)] == list(map(str, lines))

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)

    assert [text for line in lines for text in log.texts(line)] == [
        "start",
        "   epoch  train_loss",
        "       1         0.5",
        "       2        0.25",
        "\x1b[34malgo-2\x1b[0m: a=1 is not a table",
    ]


def test_tune_prints_a_line_for_each_job_and_the_best_so_far(
    stand_in: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def job(number: int, status: str, value: float | None = None) -> dict[str, Any]:
        name = {
            "TrainingJobName": f"hands-{number:03}",
            "TrainingJobArn": "arn:aws:sagemaker:x:1:j",
        }
        times = {"CreationTime": 1, "TrainingJobStatus": status}
        tuned = {"TunedHyperParameters": {"learning_rate": "0.001"}}
        metric = {"MetricName": "val_loss", "Value": value, "Type": "Minimize"}
        final = {"FinalHyperParameterTuningJobObjectiveMetric": metric}
        return name | times | tuned | (final if value is not None else {})

    description = {
        "HyperParameterTuningJobName": "hands",
        "HyperParameterTuningJobConfig": {},
        "TrainingJobStatusCounters": {},
    }
    stand_in.answer(
        "sagemaker.DescribeHyperParameterTuningJob",
        description | {"HyperParameterTuningJobStatus": "InProgress"},
        description | {"HyperParameterTuningJobStatus": "Completed"},
    )
    stand_in.answer(
        "sagemaker.ListTrainingJobsForHyperParameterTuningJob",
        {"TrainingJobSummaries": [job(1, "Completed", 0.5), job(2, "InProgress")]},
        {
            "TrainingJobSummaries": [job(1, "Completed", 0.5), job(2, "Completed", 0.25)],
            "NextToken": "t",
        },
        {"TrainingJobSummaries": [job(3, "Completed", 0.75), job(4, "Failed")]},
    )

    assert run("tune", write(tmp_path, TUNING)) == 0

    printed = [line for line in capsys.readouterr().out.splitlines() if "learning_rate" in line]
    assert printed == [
        "hands-001 Completed val_loss=0.5 learning_rate=0.001; best so far 0.5 (hands-001)",
        "hands-002 Completed val_loss=0.25 learning_rate=0.001; best so far 0.25 (hands-002)",
        "hands-003 Completed val_loss=0.75 learning_rate=0.001; best so far 0.25 (hands-002)",
        "hands-004 Failed learning_rate=0.001; best so far 0.25 (hands-002)",
    ]
