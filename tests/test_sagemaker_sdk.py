"""What the launcher sends is what the SDK's generic classes send for the same settings."""

from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from image_classifier.sagemaker import endpoint_requests, sdk, training_requests
from image_classifier.settings.settings_file import SettingsFile
from tests.settings_files import BEGINNING, TUNING, read

pytestmark = [
    pytest.mark.slow,
    # Older uses of its own packages.
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
    """The SDK's session, and all requests that come to its client; none is sent."""
    (tmp_path / "settings.yaml").write_text(
        "SchemaVersion: '1.0'\nSageMaker: {PythonSDK: {Modules: {TelemetryOptOut: true}}}\n"
    )
    for name, value in {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "SAGEMAKER_USER_CONFIG_OVERRIDE": str(tmp_path / "settings.yaml"),
    }.items():
        monkeypatch.setenv(name, value)
    from sagemaker.session import Session  # noqa: PLC0415 - it takes seconds

    client = boto3.client("sagemaker", region_name="eu-west-1")
    sent: list[tuple[str, Any]] = []

    def note(params: Any, model: Any, **_: object) -> None:  # noqa: ANN401 - botocore's own
        sent.append((model.name, params))
        # Before anything goes out.
        raise ClientError({"Error": {"Code": "Noted", "Message": ""}}, model.name)

    client.meta.events.register("provide-client-params.sagemaker.*", note)
    return (
        Session(boto3.Session(region_name="eu-west-1"), sagemaker_client=client),
        sent,
    )


def request(sent: list[tuple[str, Any]], operation: str) -> dict[str, Any]:
    return next(dict(params) for name, params in sent if name == operation)


def test_train_sends_what_the_estimator_sends(
    file: SettingsFile, session: tuple[Any, list[tuple[str, Any]]]
) -> None:
    made, sent = session
    settings = file.settings
    with pytest.raises(ClientError, match="Noted"):
        sdk.estimator(settings, made).fit(sdk.channels(settings), job_name="hands-1", wait=False)

    theirs, ours = (
        request(sent, "CreateTrainingJob"),
        training_requests.training_job(settings, "hands-1"),
    )

    assert without_defaults(theirs) == without_defaults(ours)


def test_tune_sends_what_the_tuner_sends(
    file: SettingsFile, session: tuple[Any, list[tuple[str, Any]]]
) -> None:
    made, sent = session
    settings = file.settings
    assert settings.tuning
    with pytest.raises(ClientError, match="Noted"):
        sdk.tuner(settings, settings.tuning, made).fit(
            sdk.channels(settings), job_name="hands-1", wait=False
        )

    theirs = request(sent, "CreateHyperParameterTuningJob")
    ours = training_requests.tuning_job(settings, settings.tuning, "hands-1")

    assert without_defaults(theirs) == without_defaults(ours)


def test_deploy_sends_what_the_model_sends(
    file: SettingsFile, session: tuple[Any, list[tuple[str, Any]]]
) -> None:
    made, sent = session
    settings = file.settings
    model = sdk.model(settings, "s3://my-bucket/model.tar.gz", made)
    model.name = "hands-1"
    with pytest.raises(ClientError, match="Noted"):
        model.create(instance_type="ml.m5.large")

    theirs = request(sent, "CreateModel")
    ours = endpoint_requests.model(settings, "hands-1", "s3://my-bucket/model.tar.gz")

    assert without_defaults(theirs) == without_defaults({**ours, "Tags": []})


def test_deploy_in_a_vpc_sends_what_the_multi_data_model_sends(
    tmp_path: Path, session: tuple[Any, list[tuple[str, Any]]]
) -> None:
    made, sent = session
    several = SETTINGS + 'kind = "multi-model"\n'
    settings = read(tmp_path, several, BEGINNING.replace("[images]", f"{VPC}[images]")).settings
    prefix = f"{settings.output}/models/"
    with pytest.raises(ClientError, match="Noted"):
        sdk.multi_model(settings, "hands-1", prefix, made).deploy(1, "ml.m5.large")

    theirs = request(sent, "CreateModel")
    ours = endpoint_requests.model(settings, "hands-1", prefix)

    assert theirs["PrimaryContainer"]["Mode"] == "MultiModel"
    assert theirs["VpcConfig"]["Subnets"] == ["subnet-1"]
    assert without_defaults(theirs) == without_defaults({**ours, "Tags": []})


def test_transform_sends_what_the_transformer_sends(
    file: SettingsFile, session: tuple[Any, list[tuple[str, Any]]]
) -> None:
    made, sent = session
    settings = file.settings
    transformer = sdk.transformer(settings, "hands-1", f"{settings.output}/hands-2", made)
    with pytest.raises(ClientError, match="Noted"):
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
    """Return a request without what says the same as leaving it out, lists in a fixed order."""
    if isinstance(value, dict):
        kept = {key: without_defaults(item) for key, item in value.items()}
        return {k: v for k, v in kept.items() if v not in (False, [], {}, None)}
    if isinstance(value, list | tuple):
        return sorted((without_defaults(item) for item in value), key=repr)
    return value
