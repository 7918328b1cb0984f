"""Dry runs need neither images, nor a region, nor credentials: they name placeholders."""

import json
import re
from pathlib import Path
from typing import Any

import boto3
import pytest

from container.classifier.errors import UserError
from image_classifier.cli.program import main
from image_classifier.sagemaker import (
    clarify,
    deployment,
    explanation,
    prediction,
    resources,
    training,
)
from image_classifier.sagemaker.aws import Aws
from image_classifier.settings import placeholders, settings_file
from image_classifier.settings.settings_file import SettingsError
from tests.settings_files import TUNING, read, write

NAME = 'name = "hands"\n'


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove the account of this machine: region, credentials, network."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)


class DryRun:
    """A dry run of one verb, with its output."""

    def __init__(self, directory: Path, verb: str, rest: str = "", beginning: str = NAME) -> None:
        """Fill in placeholders as the command does."""
        self.lines: list[str] = []
        file = read(directory, rest, beginning)
        self.file, self.filled = placeholders.fill(file, verb)
        region = self.file.settings.aws.region
        self.aws = Aws(region=region, is_dry=True, show=self.lines.append)

    @property
    def requests(self) -> dict[str, Any]:
        """The printed requests by operation."""
        found: dict[str, Any] = {}
        for line in self.lines:
            if line.startswith("{"):
                found |= json.loads(line)
        return found


def test_training_job_is_printed_with_placeholders(tmp_path: Path) -> None:
    dry = DryRun(tmp_path, "train")

    training.train(dry.aws, dry.file, from_tuning="earlier-job")

    assert dry.filled == {
        "aws.role": "arn:aws:iam::111122223333:role/PLACEHOLDER",
        "aws.bucket": "placeholder-bucket",
        "images.train": "111122223333.dkr.ecr.eu-west-1.amazonaws.com/image-classifier-train"
        ":PLACEHOLDER",
        "aws.region": "eu-west-1",
    }
    request = dry.requests["CreateTrainingJob"]
    assert request["RoleArn"] == dry.filled["aws.role"]
    assert request["OutputDataConfig"]["S3OutputPath"] == "s3://placeholder-bucket/hands/output"
    assert "placeholder for the best hyperparameters of earlier-job" in dry.lines[0]


@pytest.mark.parametrize(
    ("instance_type", "expected"),
    [
        ("ml.m5.xlarge", "alias/x"),
        ("ml.p3.2xlarge", "alias/x"),
        ("ml.g5.xlarge", None),
        ("ml.g4dn.xlarge", None),
        ("ml.trn1.2xlarge", None),
        ("ml.p4d.24xlarge", None),
    ],
)
def test_disks_with_a_key_of_their_own_get_no_other(
    tmp_path: Path, instance_type: str, expected: str | None
) -> None:
    rest = f'[aws]\nkms_key = "alias/x"\n[training]\ninstance_type = "{instance_type}"\n'
    dry = DryRun(tmp_path, "train", rest)

    training.train(dry.aws, dry.file)

    request = dry.requests["CreateTrainingJob"]
    assert request["ResourceConfig"].get("VolumeKmsKeyId") == expected
    assert request["OutputDataConfig"]["KmsKeyId"] == "alias/x"


def test_values_of_the_file_are_kept(tmp_path: Path) -> None:
    aws = '[aws]\nregion = "us-west-2"\nbucket = "mine"\n'
    dry = DryRun(tmp_path, "deploy", beginning=NAME + aws)

    assert dry.filled.keys() == {"aws.role", "images.serve"}
    assert dry.file.settings.aws.bucket == "mine"
    assert ".us-west-2." in dry.filled["images.serve"]
    complete = DryRun(tmp_path, "report", beginning=NAME + aws)
    assert complete.filled == {}


def test_region_of_the_environment_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")

    filled = DryRun(tmp_path, "train").filled

    assert "aws.region" not in filled
    assert ".eu-north-1." in filled["images.train"]


def test_sections_have_no_placeholder(tmp_path: Path) -> None:
    dry = DryRun(tmp_path, "tune")

    with pytest.raises(UserError, match="tune needs tuning"):
        training.tune(dry.aws, dry.file)


@pytest.mark.parametrize("kind", ["real-time", "serverless", "asynchronous", "multi-model"])
def test_every_other_request_is_printed(tmp_path: Path, kind: str) -> None:
    rest = f'{TUNING}\n[endpoint]\nkind = "{kind}"\n'
    missing = tmp_path / "photo.jpg"
    tune, deploy, predict, transform, explain = (
        DryRun(tmp_path, verb, rest)
        for verb in ("tune", "deploy", "predict", "transform", "explain")
    )

    training.tune(tune.aws, tune.file)
    deployment.deploy(deploy.aws, deploy.file)
    assert list(prediction.predict(predict.aws, predict.file, [missing], model="a.tar.gz")) == []
    prediction.transform(transform.aws, transform.file, "s3://my-bucket/images/")
    if kind != "asynchronous":
        explanation.explain(
            explain.aws, explain.file, [missing], tmp_path / "out", port=None, model=None
        )
        assert "InvokeEndpoint" in explain.requests

    assert "CreateHyperParameterTuningJob" in tune.requests
    assert {"CreateModel", "CreateEndpointConfig", "CreateEndpoint"} == deploy.requests.keys()
    invoked = "InvokeEndpointAsync" if kind == "asynchronous" else "InvokeEndpoint"
    assert invoked in predict.requests
    assert f"placeholder for {missing}, which does not exist: an empty JPEG file" in predict.lines
    assert "CreateTransformJob" in transform.requests


def test_transform_requests_the_best_classes_only(tmp_path: Path) -> None:
    dry = DryRun(tmp_path, "transform", "[transform]\ntop = 3\n")

    prediction.transform(dry.aws, dry.file, "s3://my-bucket/images/")

    output = dry.requests["CreateTransformJob"]["TransformOutput"]
    assert output["Accept"] == "application/json;top=3"


def test_best_classes_in_csv_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"transform\.top requires accept of application/json"):
        DryRun(tmp_path, "transform", '[transform]\ntop = 3\naccept = "text/csv"\n')


def test_scaling_and_expiry_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scaled = '[endpoint]\nkind = "asynchronous"\n[endpoint.scaling]\nmin_instances = 0\n'
    path = str(write(tmp_path, scaled, NAME))

    assert main(["deploy", path, "--dry-run", "--expires", "2h"]) == 0

    printed = capsys.readouterr().out
    assert "placeholder for aws.scheduler_role: arn:aws:iam::111122223333:role/PLACEH" in printed
    operations = [line.split('"')[1] for line in printed.splitlines() if line.startswith('  "')]
    assert operations == [
        "CreateModel",
        "CreateEndpointConfig",
        "CreateSchedule",
        "CreateEndpoint",
        "RegisterScalableTarget",
        "PutScalingPolicy",
        "PutScalingPolicy",
        "PutMetricAlarm",
    ]
    assert main(["deploy", path, "--dry-run", "--expires", "never"]) == 0
    assert '"DeleteSchedule": {' in capsys.readouterr().out
    assert main(["delete", path, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    for operation in ("DeleteSchedule", "DeregisterScalableTarget", "DeleteAlarms"):
        assert f'"{operation}": {{' in printed
    assert main(["cost", path]) == 0
    assert "(the Price List API was not read: GetProducts: no AWS cred" in capsys.readouterr().out


def test_delete_names_placeholders_of_resources(tmp_path: Path) -> None:
    dry = DryRun(tmp_path, "delete")

    found = resources.find(dry.aws, dry.file.settings)
    objects = resources.outputs(dry.aws, dry.file.settings, found)
    resources.delete(dry.aws, dry.file.settings, found.own, objects)

    assert "placeholder for the resources on SageMaker: " in dry.lines[0]
    assert "no AWS credentials" in dry.lines[0]
    assert dry.requests["DeleteEndpoint"] == {"EndpointName": "hands"}
    assert dry.requests["StopTrainingJob"] == {"TrainingJobName": "hands-YYMMDD-HHMMSS"}
    assert "DeleteObjects: 1 objects in s3://placeholder-bucket/hands/output/" in dry.lines[-1]


def test_clarify_prints_its_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The SDK is optional.
    monkeypatch.setitem(__import__("sys").modules, "sagemaker", None)
    dry = DryRun(tmp_path, "explain --clarify")

    clarify.explain(dry.aws, dry.file, "s3://my-bucket/images/", ["a", "b"])

    assert "CreateProcessingJob" in dry.requests
    assert any("placeholder for AWS's container image clarify" in line for line in dry.lines)


def test_check_lists_separately_what_is_missing_for_sagemaker(tmp_path: Path) -> None:
    path = write(tmp_path, "[training]\nspot = 1\n[aws]\nbucket = 'my-bucket'\n", NAME)

    with pytest.raises(SettingsError) as caught:
        settings_file.read(path, tmp_path / "none", is_check=True)

    mistake, missing = str(caught.value).splitlines()
    assert re.match(r".*/settings\.toml:3: training\.spot must be a valid boolean", mistake)
    assert missing == (
        "missing for SageMaker only: aws.role (the ARN of the role that jobs run as), "
        "images.train (./push.sh writes it into images.json), "
        "images.serve (./push.sh writes it into images.json), "
        "aws.region (or the environment variable AWS_REGION)"
    )


def test_check_lists_folders_of_channels_that_are_not_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, "[data]\nlocal = 'images'\nchannels = ['train', 'val']\n", NAME)
    for folder in ("train/a", "train/b", "validation/b", "model", "unrelated"):
        (tmp_path / "images" / folder).mkdir(parents=True)
    for folder in ("train/a", "train/b", "validation/b"):
        (tmp_path / "images" / folder / "1.png").touch()

    assert main(["check", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "not used, because data.channels lacks them: model"


def test_check_finds_images_that_training_rejects(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = write(tmp_path, "[data]\nlocal = '~/images'\nchannels = ['training']\n", NAME)
    for number, folder in enumerate(("train/ant", "train/bee", "test/wasp")):
        (tmp_path / "images" / "train" / folder).mkdir(parents=True)
        (tmp_path / "images" / "train" / folder / f"{number}.png").touch()
    reason = f"{path}:3: data.local cannot be trained on: the test channel has classes that"

    assert main(["check", str(path)]) == 1
    assert capsys.readouterr().err.startswith(reason)
    assert main(["check", str(path), "--set", "hyperparameters.splits=none"]) == 0


def test_command_checks_overrides_and_fills_placeholders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write(tmp_path, "", NAME))

    assert main(["check", path, "--set", "hyperparameters.network=resnet19"]) == 1
    mistake, missing = capsys.readouterr().err.splitlines()[:2]
    assert mistake.startswith("--set: hyperparameters.network names an unknown network")
    assert missing.startswith("missing for SageMaker only: aws.role")
    assert main(["check", path, "--set", "training.spot=true"]) == 0
    first, missing = capsys.readouterr().out.splitlines()
    assert first == f"{path}: no mistakes"
    assert missing.startswith("missing for SageMaker only: ")
    assert main(["train", path, "--dry-run", "--set", "training.spot=true"]) == 0
    printed = capsys.readouterr().out
    assert "placeholder for aws.bucket: placeholder-bucket\n" in printed
    assert '"EnableManagedSpotTraining": true' in printed
    assert main(["delete", path, "--dry-run"]) == 0
    assert "placeholder for the resources on SageMaker: " in capsys.readouterr().out
    assert main(["explain", path, "s3://my-bucket/c/", "--clarify", "a", "b", "--dry-run"]) == 0
    assert "CreateProcessingJob" in capsys.readouterr().out
