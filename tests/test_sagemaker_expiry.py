"""`deploy --expires`: the schedule that deletes the endpoint, in moto's EventBridge Scheduler."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.accounts import ENDPOINT, MODEL, ON_ACCOUNT, StandIn, backend, client, run
from tests.settings_files import BEGINNING, write

pytestmark = ON_ACCOUNT

ROLE = "arn:aws:iam::111122223333:role/scheduler"


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    beginning = BEGINNING.replace("[images]", f'scheduler_role = "{ROLE}"\n\n[images]')
    return write(tmp_path, ENDPOINT, beginning)


def schedules() -> list[Any]:
    """Return the schedules with all of their fields."""
    scheduler = client("scheduler")
    listed = scheduler.list_schedules()["Schedules"]
    return [scheduler.get_schedule(Name=each["Name"]) for each in listed]


def time_of(schedule: Any) -> datetime:  # noqa: ANN401 - botocore's own
    text = schedule["ScheduleExpression"]
    return datetime.strptime(text, "at(%Y-%m-%dT%H:%M:%S)").replace(tzinfo=UTC)


def test_endpoint_is_deleted_after_its_time(
    settings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = datetime.now(UTC).replace(microsecond=0)

    assert run("deploy", settings, "--job", MODEL, "--expires", "2h") == 0

    after = datetime.now(UTC)
    (schedule,) = schedules()
    assert before + timedelta(hours=2) <= time_of(schedule) <= after + timedelta(hours=2)
    assert schedule["Name"] == "hands-expiry"
    assert schedule["ScheduleExpressionTimezone"] == "UTC"
    assert schedule["ActionAfterCompletion"] == "DELETE"
    target = schedule["Target"]
    assert target["Arn"] == "arn:aws:scheduler:::aws-sdk:sagemaker:deleteEndpoint"
    assert target["RoleArn"] == ROLE
    assert json.loads(target["Input"]) == {"EndpointName": "hands"}
    shown = time_of(schedule).strftime("%Y-%m-%d %H:%M UTC")
    assert f"the endpoint hands is deleted on {shown}" in capsys.readouterr().out
    assert run("status", settings) == 0
    assert f"deletion of the endpoint on {shown}\n" in capsys.readouterr().out

    assert run("delete", settings, "--yes") == 0
    assert schedules() == []


def test_rejected_schedule_ends_deploy_before_the_endpoint(
    settings: Path, stand_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in.answer("scheduler.CreateSchedule", "ValidationException")

    assert run("deploy", settings, "--job", MODEL, "--expires", "90m") == 1

    assert "AWS rejected CreateSchedule: ValidationException" in capsys.readouterr().err
    assert backend().endpoints == {}


def test_update_moves_keeps_or_removes_the_schedule(
    settings: Path, stand_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("deploy", settings, "--job", MODEL, "--expires", "1d") == 0
    first = time_of(schedules()[0])
    stand_in.answer("sagemaker.UpdateEndpoint", {"EndpointArn": "arn:aws:sagemaker:eu-west-1:1:e"})
    update = ("deploy", settings, "--job", MODEL, "--no-wait")
    capsys.readouterr()

    assert run(*update) == 0
    assert "the endpoint hands is still deleted on " in capsys.readouterr().out
    assert time_of(schedules()[0]) == first
    assert run(*update, "--expires", "3d") == 0
    assert time_of(schedules()[0]) >= first + timedelta(days=2)
    assert run(*update, "--expires", "never") == 0
    assert schedules() == []


def test_schedule_of_an_earlier_endpoint_does_not_delete_a_new_one(settings: Path) -> None:
    assert run("deploy", settings, "--job", MODEL, "--expires", "2h") == 0
    # In the console.
    client("sagemaker").delete_endpoint(EndpointName="hands")

    assert run("deploy", settings, "--job", MODEL) == 0

    assert schedules() == []
    assert "hands" in backend().endpoints


def test_schedule_that_did_not_succeed_is_reported(
    settings: Path, stand_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    late = {"ScheduleExpression": "at(2026-01-02T03:04:05)"}
    stand_in.answer("scheduler.GetSchedule", late, {"ScheduleExpression": "rate(1 hour)"})

    assert run("status", settings) == 0
    expected = (
        "deletion of the endpoint on 2026-01-02 03:04 UTC, which did not succeed: see aws.sch"
    )
    assert expected in capsys.readouterr().out
    assert run("status", settings) == 1
    assert "the schedule hands-expiry has the expression rate(1 hour)" in capsys.readouterr().err


def test_schedule_of_another_users_endpoint_is_kept(
    settings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("deploy", settings, "--job", MODEL, "--expires", "2h") == 0
    for tag in backend().endpoints["hands"].tags:
        if tag["Key"] == "image-classifier-creator":
            tag["Value"] = "user/ben"
    capsys.readouterr()

    assert run("delete", settings, "--yes") == 0

    assert "deletion of the endpoint" not in capsys.readouterr().out
    assert len(schedules()) == 1


def test_role_is_required(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("deploy", write(tmp_path, ENDPOINT), "--job", MODEL, "--expires", "2h") == 1

    expected = "deploy --expires needs aws.scheduler_role (see docs/how-to/cut-costs.md)"
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("text", ["2", "h", "-2h", "5m", "400d", "2 h", "2w", "1e9h", "٣h", ""])
def test_other_times_are_rejected(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run("deploy", write(tmp_path), f"--expires={text}")
    assert f"{text!r} is not a time of 15 minutes to 365 days" in capsys.readouterr().err


def test_expires_is_for_sagemaker(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("deploy", write(tmp_path), "--local", "--expires", "2h")
    assert "--expires is for SageMaker, and not for --local" in capsys.readouterr().err
