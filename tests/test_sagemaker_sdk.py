"""Our requests equal those of the SDK's generic classes for the same settings."""

from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from image_classifier.sagemaker import endpoint_requests, training_requests
from image_classifier.settings.settings_file import SettingsFile
from tests.settings_files import BEGINNING, TUNING, read

pytestmark = [
    pytest.mark.slow,
    # The SDK uses deprecated functions of its dependencies.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

SETTINGS = (
    TUNING
    + """
[hyperparameters]
network = "small"
epochs = 3

[endpoint]
environment = { SAGEMAKER_MODEL_SERVER_WORKERS = "1" }
"""
)

VPC = """
subnets = ["subnet-1"]
security_groups = ["sg-1"]
"""


@pytest.fixture
def file(tmp_path: Path) -> SettingsFile:
    return read(tmp_path, SETTINGS)


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Any, list[tuple[str, Any]]]:
    """The SDK's session, and the requests of its client; none is sent."""
    (tmp_path / "settings.yaml").write_text(
        "SchemaVersion: '1.0'\nSageMaker: {PythonSDK: {Modules: {TelemetryOptOut: true}}}\n"
    )
    for name, value in {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "SAGEMAKER_USER_CONFIG_OVERRIDE": str(tmp_path / "settings.yaml"),
    }.items():
        monkeypatch.setenv(name, value)
    from sagemaker.session import Session  # noqa: PLC0415 - takes seconds, reads the environment

    client = boto3.client("sagemaker", region_name="eu-west-1")
    sent: list[tuple[str, Any]] = []

    def record(params: Any, model: Any, **_: object) -> None:  # noqa: ANN401 - botocore's own
        sent.append((model.name, params))
        # Stop before the request is sent.
        raise ClientError({"Error": {"Code": "Recorded", "Message": ""}}, model.name)

    client.meta.events.register("provide-client-params.sagemaker.*", record)
    return (
        Session(boto3.Session(region_name="eu-west-1"), sagemaker_client=client),
        sent,
    )


@pytest.fixture
def sdk(session: tuple[Any, list[tuple[str, Any]]]) -> ModuleType:
    """Our module of SDK objects, imported with the session's environment."""
    from image_classifier.sagemaker import sdk  # noqa: PLC0415

    assert session
    return sdk


def request(sent: list[tuple[str, Any]], operation: str) -> dict[str, Any]:
    return next(dict(params) for name, params in sent if name == operation)


@pytest.mark.parametrize("service", ["true", "false"])
def test_train_sends_the_request_of_the_estimator(
    service: str, tmp_path: Path, session: tuple[Any, list[tuple[str, Any]]], sdk: ModuleType
) -> None:
    made, sent = session
    settings = read(tmp_path, f"{SETTINGS}\n[debugger]\nservice = {service}\n").settings
    with pytest.raises(ClientError, match="Recorded"):
        sdk.estimator(settings, made).fit(sdk.channels(settings), job_name="hands-1", wait=False)

    theirs, ours = (
        request(sent, "CreateTrainingJob"),
        training_requests.training_job(settings, "hands-1"),
    )
    if service == "false":
        # The SDK always sends it.
        assert theirs.pop("ProfilerConfig") == {"DisableProfiler": True}

    assert without_defaults(theirs) == without_defaults(ours)


def test_tune_sends_the_request_of_the_tuner(
    file: SettingsFile, session: tuple[Any, list[tuple[str, Any]]], sdk: ModuleType
) -> None:
    made, sent = session
    settings = file.settings
    assert settings.tuning
    with pytest.raises(ClientError, match="Recorded"):
        sdk.tuner(settings, settings.tuning, made).fit(
            sdk.channels(settings), job_name="hands-1", wait=False
        )

    theirs = request(sent, "CreateHyperParameterTuningJob")
    ours = training_requests.tuning_job(settings, settings.tuning, "hands-1")

    assert without_defaults(theirs) == without_defaults(ours)


def test_deploy_sends_the_request_of_the_model(
    file: SettingsFile, session: tuple[Any, list[tuple[str, Any]]], sdk: ModuleType
) -> None:
    made, sent = session
    settings = file.settings
    model = sdk.model(settings, "s3://my-bucket/model.tar.gz", made)
    model.name = "hands-1"
    with pytest.raises(ClientError, match="Recorded"):
        model.create(instance_type="ml.m5.large")

    theirs = request(sent, "CreateModel")
    ours = endpoint_requests.model(settings, "hands-1", "s3://my-bucket/model.tar.gz")

    assert without_defaults(theirs) == without_defaults({**ours, "Tags": []})


def test_deploy_in_a_vpc_sends_the_request_of_the_multi_data_model(
    tmp_path: Path, session: tuple[Any, list[tuple[str, Any]]], sdk: ModuleType
) -> None:
    made, sent = session
    several = SETTINGS + 'kind = "multi-model"\n'
    settings = read(tmp_path, several, BEGINNING.replace("[images]", f"{VPC}[images]")).settings
    prefix = f"{settings.output}/models/"
    with pytest.raises(ClientError, match="Recorded"):
        sdk.multi_model(settings, "hands-1", prefix, made).deploy(1, "ml.m5.large")

    theirs = request(sent, "CreateModel")
    ours = endpoint_requests.model(settings, "hands-1", prefix)

    assert theirs["PrimaryContainer"]["Mode"] == "MultiModel"
    assert theirs["VpcConfig"]["Subnets"] == ["subnet-1"]
    assert without_defaults(theirs) == without_defaults({**ours, "Tags": []})


def test_transform_sends_the_request_of_the_transformer(
    file: SettingsFile, session: tuple[Any, list[tuple[str, Any]]], sdk: ModuleType
) -> None:
    made, sent = session
    settings = file.settings
    transformer = sdk.transformer(settings, "hands-1", f"{settings.output}/hands-2", made)
    with pytest.raises(ClientError, match="Recorded"):
        transformer.transform(
            "s3://my-bucket/images/",
            content_type=settings.transform.content_type,
            compression_type="None",
            split_type="None",
            job_name="hands-2",
            wait=False,
        )

    theirs = request(sent, "CreateTransformJob")
    ours = endpoint_requests.transform_job(settings, "hands-2", "hands-1", "s3://my-bucket/images/")

    assert without_defaults(theirs) == without_defaults(ours)


def without_defaults(value: object) -> object:
    """Return a request without fields that equal their default, lists in a fixed order."""
    if isinstance(value, dict):
        kept = {key: without_defaults(item) for key, item in value.items()}
        return {k: v for k, v in kept.items() if v not in (False, [], {}, None)}
    if isinstance(value, list | tuple):
        return sorted((without_defaults(item) for item in value), key=repr)
    return value
