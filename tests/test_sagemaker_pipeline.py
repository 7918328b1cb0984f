"""`pipeline`: its definition, and what the command creates, starts and deletes on moto's server."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest

from image_classifier.sagemaker import pipeline as pipelines
from image_classifier.sagemaker import training_requests
from image_classifier.sagemaker.aws import Aws
from image_classifier.sagemaker.request_fields import CREATOR_TAG, is_ours
from tests.accounts import IGNORE_OPEN_CONNECTIONS, USER, StandIn, client, keys, put, run
from tests.settings_files import ACCOUNT, read, write

pytestmark = IGNORE_OPEN_CONNECTIONS

DATA = '[data]\nchannels = ["training", "val", "test", "weights"]\n'
SOURCE = '[pipeline]\nsource = "s3://my-bucket/hands/raw/hands.zip"\n'
JOB = "hands-kytlemm1lvpq-cIpzShs3Qp-0"


def definition(directory: Path, rest: str) -> dict[str, Any]:
    aws = Aws(region="eu-west-1", is_dry=True, show=lambda _text: None)
    made: dict[str, Any] = pipelines.definition(aws, read(directory, rest))
    # What is sent.
    assert json.loads(json.dumps(made)) == made
    return made


def steps_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return all steps by name."""
    found = {step["Name"]: step for step in document["Steps"]}
    arguments = found["Evaluate"]["Arguments"]
    return found | {step["Name"]: step for step in arguments["IfSteps"] + arguments["ElseSteps"]}


def variables(value: object) -> Iterator[str]:
    """Yield the names of all variables in a document."""
    match value:
        case {"Get": name}:
            yield name
        case Mapping():
            for item in value.values():
                yield from variables(item)
        case list():
            for item in value:
                yield from variables(item)


def test_training_step_has_the_request_of_train(tmp_path: Path) -> None:
    step = steps_of(definition(tmp_path, DATA))["Train"]

    expected = training_requests.training_job(read(tmp_path, DATA).settings, "hands")
    assert step["Arguments"].pop("Tags")[-1] == {"Key": CREATOR_TAG, "Value": "CREATOR"}
    del expected["Tags"]
    assert step["Arguments"] == expected


def test_training_reads_what_the_execution_has_prepared(tmp_path: Path) -> None:
    steps = steps_of(definition(tmp_path, DATA + SOURCE))

    application = steps["Prepare"]["Arguments"]["AppSpecification"]
    assert application["ContainerArguments"][:3] == [
        "prepare",
        "/opt/ml/processing/input/source/hands.zip",
        "/opt/ml/processing/output/data",
    ]
    channels = steps["Train"]["Arguments"]["InputDataConfig"]
    addresses = {
        channel["ChannelName"]: channel["DataSource"]["S3DataSource"]["S3Uri"]
        for channel in channels
    }
    assert addresses.pop("weights") == "s3://my-bucket/hands/data/weights/"
    output = "Steps.Prepare.ProcessingOutputConfig.Outputs['data'].S3Output.S3Uri"
    folders = {
        name: joined["Std:Join"]["Values"][1:]
        for name, joined in addresses.items()
        if joined["Std:Join"]["Values"][0] == {"Get": output}
    }
    assert folders == {
        "training": ["/data/train/"],
        "val": ["/data/validation/"],
        "test": ["/data/test/"],
    }


def test_minimum_accuracy_is_a_parameter_instead_of_a_hyperparameter(tmp_path: Path) -> None:
    document = definition(tmp_path, f"{DATA}[hyperparameters]\nmin_accuracy = 0.9\nepochs = 3\n")

    steps = steps_of(document)
    assert document["Parameters"] == [
        {"Name": "MinAccuracy", "Type": "Float", "DefaultValue": 0.9},
    ]
    assert steps["Train"]["Arguments"]["HyperParameters"] == {"epochs": "3"}
    (condition,) = steps["Evaluate"]["Arguments"]["Conditions"]
    assert condition["LeftValue"] == {
        "Get": "Steps.Train.FinalMetricDataList['test_accuracy'].Value"
    }
    assert condition["RightValue"] == {"Get": "Parameters.MinAccuracy"}


def test_variables_refer_to_metrics_and_steps_that_exist(tmp_path: Path) -> None:
    rest = '[data]\nchannels = ["train"]\n[training]\nspot = true\n' + SOURCE
    document = definition(tmp_path, rest)

    steps, names = steps_of(document), set(variables(document))
    metrics = steps["Train"]["Arguments"]["AlgorithmSpecification"]["MetricDefinitions"]
    assert "val_accuracy" in {metric["Name"] for metric in metrics}
    assert names == {
        "Execution.PipelineExecutionId",
        "Parameters.MinAccuracy",
        "Steps.Prepare.ProcessingOutputConfig.Outputs['data'].S3Output.S3Uri",
        "Steps.Train.FinalMetricDataList['val_accuracy'].Value",
        "Steps.Train.ModelArtifacts.S3ModelArtifacts",
    }
    # An interrupted job continues; another execution starts from the beginning.
    checkpoints = steps["Train"]["Arguments"]["CheckpointConfig"]["S3Uri"]["Std:Join"]["Values"]
    assert checkpoints[1:] == [{"Get": "Execution.PipelineExecutionId"}, "checkpoints"]


def test_requests_of_steps_are_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    long = write(tmp_path, SOURCE.replace("hands.zip", "a" * 1024))
    assert run("pipeline", long, "--dry-run") == 1
    assert "step Prepare: CreateProcessingJob would be rejected: " in capsys.readouterr().err
    mistaken = write(tmp_path, f'{SOURCE}prepare_options = ["--lable", "x"]\n')
    assert run("pipeline", mistaken, "--dry-run") == 1
    assert "prepare_options: unrecognized arguments: --lable x" in capsys.readouterr().err
    assert run("pipeline", write(tmp_path, '[pipeline]\nsource = "hands.zip"\n')) == 1
    assert "pipeline.source must look like s3://" in capsys.readouterr().err


def test_output_is_the_definition_without_an_account(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    settings, output = write(tmp_path, DATA), tmp_path / "pipeline.json"

    assert run("pipeline", settings, "--dry-run", "--output", output) == 0
    assert json.loads(output.read_text()) == definition(tmp_path, DATA)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        run("pipeline", settings, "--start", "--output", output)
    assert "--output creates no pipeline to start" in capsys.readouterr().err
    assert run("pipeline", settings, "--dry-run", "--output", tmp_path / "none" / "p.json") == 1
    assert "none/p.json: No such file or directory" in capsys.readouterr().err
    assert run("pipeline", settings, "--dry-run", "--start") == 0
    printed = capsys.readouterr().out
    assert '"Name": "Evaluate"' in printed
    assert '"StartPipelineExecution": {' in printed


def test_pipeline_is_created_updated_started_and_deleted(
    account: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert account
    settings, sagemaker = write(tmp_path, DATA), client("sagemaker")

    assert run("pipeline", settings) == 0
    assert capsys.readouterr().out == "hands\n"
    described = sagemaker.describe_pipeline(PipelineName="hands")
    assert described["RoleArn"] == f"arn:aws:iam::{ACCOUNT}:role/image-classifier"
    assert steps_of(json.loads(described["PipelineDefinition"])).keys() == {
        "Train",
        "Evaluate",
        "Register",
        "Fail",
    }
    groups = sagemaker.list_model_package_groups()["ModelPackageGroupSummaryList"]
    assert [group["ModelPackageGroupName"] for group in groups] == ["hands"]
    assert run("pipeline", write(tmp_path, DATA + SOURCE), "--start") == 0
    execution = capsys.readouterr().out.splitlines()[-1]
    assert "pipeline/hands/execution/" in execution
    changed = sagemaker.describe_pipeline(PipelineName="hands")["PipelineDefinition"]
    assert "Prepare" in steps_of(json.loads(changed))
    assert run("status", settings) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"execution {execution} (Succeeded)",
        "pipeline hands",
    ]
    put(f"hands/output/{JOB}/output/model.tar.gz")
    put("hands/output/kytlemm1lvpq/data/train/a/1.png")

    assert run("delete", settings, "--yes") == 0

    assert not sagemaker.list_pipelines()["PipelineSummaries"]
    # A version in the registry can need it.
    assert keys() == {f"hands/output/{JOB}/output/model.tar.gz"}


def test_pipeline_of_another_user_is_kept(
    account: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert account
    client("sagemaker").create_pipeline(
        PipelineName="hands",
        PipelineDefinition="{}",
        ClientRequestToken="0" * 32,
        RoleArn=f"arn:aws:iam::{ACCOUNT}:role/image-classifier",
        Tags=[{"Key": "image-classifier", "Value": "hands"}, {"Key": CREATOR_TAG, "Value": "b"}],
    )

    assert run("pipeline", write(tmp_path, DATA)) == 1

    assert f"the pipeline hands belongs to b, and you are {USER}" in capsys.readouterr().err


def test_running_execution_is_stopped_and_its_pipeline_kept(
    account: str,
    stand_in: StandIn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert account
    settings = write(tmp_path, DATA)
    assert run("pipeline", settings) == 0
    arn = f"arn:aws:sagemaker:eu-west-1:{ACCOUNT}:pipeline/hands/execution/kytlemm1lvpq"
    executions = [
        {"PipelineExecutionArn": arn, "PipelineExecutionStatus": status}
        for status in ("Executing", "Succeeded")
    ]
    listed = {"PipelineExecutionSummaries": executions}
    stand_in.answer("sagemaker.ListPipelineExecutions", listed)
    stand_in.answer("sagemaker.StopPipelineExecution", {"PipelineExecutionArn": arn})
    capsys.readouterr()

    assert run("delete", settings, "--yes", "--keep-output") == 0

    assert capsys.readouterr().out.splitlines() == [
        f"stop execution {arn} (Executing)",
        f"stopping execution {arn} (Executing)",
    ]
    (request,) = stand_in.sent("StopPipelineExecution")
    assert request["PipelineExecutionArn"] == arn
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    assert client("sagemaker").describe_pipeline(PipelineName="hands")


@pytest.mark.parametrize(
    ("name", "expected"),
    [(JOB, True), ("hands-2-kytlemm1lvpq-cIpzShs3Qp-0", False), ("hands-adamw-x-0", False)],
)
def test_jobs_of_an_execution_belong_to_the_settings(
    name: str, tmp_path: Path, *, expected: bool
) -> None:
    assert is_ours(read(tmp_path).settings, name) is expected
