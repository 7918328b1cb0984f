"""Deployments that fail in every way that SageMaker has: a scripted endpoint, and moto."""

import io
import json
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from image_classifier.sagemaker import endpoint_requests
from tests.accounts import ENDPOINT, MODEL, ON_ACCOUNT, StandIn, answer_with, client, put, run
from tests.settings_files import read, write

pytestmark = ON_ACCOUNT


def status(stand_in: StandIn, name: str, *, is_new: bool = True, reason: str = "") -> Any:  # noqa: ANN401
    """Return a description of the endpoint, with its new or an old configuration."""

    def answer() -> dict[str, object]:
        config = stand_in.sent("CreateEndpoint")[0]["EndpointConfigName"]
        document = {"EndpointStatus": name, "EndpointConfigName": config if is_new else "hands-old"}
        return document | ({"FailureReason": reason} if reason else {})

    return answer


ROLLED_BACK = "the alarm errors is in state ALARM"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (
            [("Updating", True, ""), ("RollingBack", True, ""), ("InService", False, ROLLED_BACK)],
            f"was rolled back to hands-old, it does not serve hands-{{stamp}}: {ROLLED_BACK}",
        ),
        (
            [("RollingBack", True, ""), ("UpdateRollbackFailed", False, "no capacity")],
            "has neither the new model nor a working old one, delete it (UpdateRollbackFailed): ",
        ),
        ([("Creating", True, ""), ("Failed", True, "no /ping")], "is Failed: no /ping"),
        ([("OutOfService", True, "")], "is OutOfService: AWS gives no reason"),
        (
            [("Creating", True, "")],
            "is still Creating after 1 minutes (endpoint.deploy_minutes); `status` shows it: AWS",
        ),
    ],
    ids=["rolled back", "rollback failed", "failed", "out of service", "stuck"],
)
def test_deployment_fails_with_reason_and_log(
    script: list[tuple[str, bool, str]],
    expected: str,
    stand_in: StandIn,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stand_in.answer("sagemaker.CreateEndpoint", {"EndpointArn": "arn:aws:sagemaker:eu-west-1:1:e"})
    steps = [status(stand_in, name, is_new=new, reason=reason) for name, new, reason in script]
    stand_in.answer("sagemaker.DescribeEndpoint", *steps)
    write_log([f"line {number}" for number in range(14)])
    settings = write(tmp_path, ENDPOINT + "deploy_minutes = 1\n")

    assert run("deploy", settings, "--job", MODEL) == 1

    printed = capsys.readouterr()
    stamp = stand_in.sent("CreateEndpoint")[0]["EndpointConfigName"].removeprefix("hands-")
    assert f"the endpoint hands {expected.format(stamp=stamp)}" in printed.err
    assert script[-1][2] in printed.err
    assert printed.err.endswith(
        "last lines of the log:\n" + "".join(f"line {number}\n" for number in range(4, 14))
    )
    assert script[0][0] in printed.out


def test_throttled_calls_are_repeated(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.answer("sagemaker.CreateEndpoint", {"EndpointArn": "arn:aws:sagemaker:eu-west-1:1:e"})
    throttled = ["ThrottlingException"] * 4
    stand_in.answer("sagemaker.DescribeEndpoint", *throttled, status(stand_in, "InService"))

    assert run("deploy", write(tmp_path, ENDPOINT), "--job", MODEL) == 0
    assert len(stand_in.sent("DescribeEndpoint")) == 5


@pytest.mark.parametrize(
    ("state", "remedy"),
    [("Updating", "wait until it is InService"), ("Failed", "`delete` it, then deploy")],
)
def test_endpoint_that_cannot_be_updated_stops_before_anything_is_created(
    state: str,
    remedy: str,
    stand_in: StandIn,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = write(tmp_path, ENDPOINT)
    summary = {"EndpointName": "hands", "EndpointArn": "arn:aws:sagemaker:eu-west-1:1:endpoint/h"}
    times = {"CreationTime": 1, "LastModifiedTime": 1}
    found = {"Endpoints": [summary | times | {"EndpointStatus": state}]}
    stand_in.answer("sagemaker.ListEndpoints", found)
    tags = {"image-classifier": "hands", "image-classifier-creator": "user/moto"}
    listed = [{"Key": key, "Value": value} for key, value in tags.items()]
    stand_in.answer("sagemaker.ListTags", {"Tags": listed})

    assert run("deploy", settings, "--job", MODEL) == 1

    assert f"the endpoint hands is {state}: {remedy}" in capsys.readouterr().err
    assert client("sagemaker").list_models()["Models"] == []


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ([0.1, 0.9], "the endpoint reproduces 1 golden images of the model"),
        ([0.9, 0.1], "does not reproduce golden/0.png of s3://my-bucket/a/model.tar.gz"),
        ([0.1, 0.8, 0.1], "its probabilities differ by inf"),
        (None, "the endpoint was not tested: s3://my-bucket/a/model.tar.gz has no golden images"),
    ],
    ids=["same", "other", "other classes", "none"],
)
def test_deploy_sends_golden_images(
    probabilities: list[float] | None,
    expected: str,
    account: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    put("a/model.tar.gz", artifact(probabilities))
    prediction = {"class_name": "dog", "probabilities": [0.1, 0.9]}
    answer_with(account, json.dumps({"predictions": [prediction], "class_names": ["cat", "dog"]}))

    code = run("deploy", write(tmp_path, ENDPOINT), "--job", MODEL)

    printed = capsys.readouterr()
    assert expected in printed.out + printed.err
    assert code == int("differ" in printed.err)


def test_golden_image_that_the_endpoint_rejects_is_named(
    stand_in: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put("a/model.tar.gz", artifact([0.1, 0.9]))
    error = '{"error": {"code": "x", "message": "damaged"}}'
    stand_in.answer("sagemaker-runtime.InvokeEndpoint", f"ModelError: 422 {error}")

    assert run("deploy", write(tmp_path, ENDPOINT), "--job", MODEL) == 1
    assert f"hands rejected golden/0.png of {MODEL}: damaged" in capsys.readouterr().err


def test_deploy_sends_golden_images_to_every_model(
    stand_in: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put("a/model.tar.gz", artifact([0.1, 0.9]))
    put("b/model.tar.gz", artifact([0.2, 0.8]))
    put("none/model.tar.gz", artifact(None))
    prediction = {"class_name": "dog", "probabilities": [0.1, 0.9]}
    answer = {"predictions": [prediction], "class_names": ["cat", "dog"]}
    stand_in.answer("sagemaker-runtime.InvokeEndpoint", "ModelNotReadyException", answer)
    models = ", ".join(f'"s3://my-bucket/{name}/model.tar.gz"' for name in ("a", "none", "b"))
    settings = write(tmp_path, f'{ENDPOINT}kind = "multi-model"\nmodels = [{models}]\n')

    assert run("deploy", settings) == 0

    lines = capsys.readouterr().out.splitlines()
    copies = [line.split()[1] for line in lines if line.startswith("model ")]
    assert [name.split("-")[0] for name in copies] == ["a", "none", "b"]
    assert f"the endpoint reproduces 1 golden images of {copies[0]}" in lines
    assert any(line.startswith(f"{copies[1]} was not tested: ") for line in lines)
    assert f"the endpoint reproduces 1 golden images of {copies[2]}" in lines


def artifact(probabilities: list[float] | None) -> bytes:
    """Return a model.tar.gz with one golden image of the red patch."""
    files = {"manifest.json": b"{}"}
    if probabilities is not None:
        answers = [{"file": "golden/0.png", "probabilities": probabilities}]
        files |= {"golden/answers.json": json.dumps(answers).encode(), "golden/0.png": b"png"}
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, body in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return file.getvalue()


def write_log(lines: list[str], group: str = "/aws/sagemaker/Endpoints/hands") -> None:
    """Write the log of the endpoint's container."""
    logs = client("logs")
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName="AllTraffic/i-0")
    # After the start of the deployment, on a slow machine too.
    now = round(datetime.now(UTC).timestamp() * 1000) + 3_600_000
    events = [{"timestamp": now, "message": line} for line in lines]
    logs.put_log_events(logGroupName=group, logStreamName="AllTraffic/i-0", logEvents=events)


def test_rollout_shifts_traffic_and_watches_alarms(tmp_path: Path) -> None:
    rollout = '[endpoint.rollout]\ntraffic = "linear"\nstep_percent = 20\nalarms = ["errors"]\n'
    settings = read(tmp_path, f"{ENDPOINT}instance_count = 5\n{rollout}").settings

    assert endpoint_requests.deployment_config(settings) == {
        "DeploymentConfig": {
            "BlueGreenUpdatePolicy": {
                "TrafficRoutingConfiguration": {
                    "Type": "LINEAR",
                    "WaitIntervalInSeconds": 300,
                    "LinearStepSize": {"Type": "CAPACITY_PERCENT", "Value": 20},
                },
                "TerminationWaitInSeconds": 0,
                "MaximumExecutionTimeoutInSeconds": 3600,
            },
            "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "errors"}]},
        }
    }


def test_stopped_training_is_a_failure(
    stand_in: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    description = {"TrainingJobStatus": "Stopped", "SecondaryStatus": "MaxRuntimeExceeded"}
    stand_in.answer("sagemaker.DescribeTrainingJob", description)

    assert run("train", write(tmp_path)) == 1

    assert "was stopped before its end (MaxRuntimeExceeded)" in capsys.readouterr().err
