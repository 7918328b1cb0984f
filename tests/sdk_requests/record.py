"""Record the requests of the installed SageMaker SDK: `python -m tests.sdk_requests.record`.

Run it in an environment with version 2 and in one with version 3. No request is sent.
"""

import copy
import importlib
import json
import os
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3

from image_classifier.sagemaker.request_fields import tags
from image_classifier.settings.schema import Settings
from tests.sdk_requests import settings as common

FOLDER = Path(__file__).parent

NO_TELEMETRY = """
SchemaVersion: '1.0'
SageMaker: {PythonSDK: {Modules: {TelemetryOptOut: true}}}
"""

_SERVICE = {"Service": "sagemaker.amazonaws.com"}
TRUST = {"Statement": [{"Effect": "Allow", "Principal": _SERVICE, "Action": "sts:AssumeRole"}]}

# Responses that the SDKs read.
ANSWERS = {
    "CreateModel": {"ModelArn": "arn:aws:sagemaker:eu-west-1:111122223333:model/hands-1"},
    "DescribeModel": {"ModelName": "hands-1", "PrimaryContainer": {}},
    "GetRole": {"Role": {"Arn": common.ROLE, "AssumeRolePolicyDocument": json.dumps(TRUST)}},
    "SimulatePrincipalPolicy": {"EvaluationResults": []},
}


def main() -> None:
    """Record into sdk2.json or sdk3.json."""
    version = metadata.version("sagemaker")
    generation = version.split(".")[0]
    with tempfile.TemporaryDirectory() as folder:
        settings = common.read(Path(folder))
        defaults = Path(folder, "sagemaker.yaml")
        defaults.write_text(NO_TELEMETRY, encoding="utf-8")
        os.environ["SAGEMAKER_USER_CONFIG_OVERRIDE"] = str(defaults)
        # Version 3 creates clients when it is imported.
        os.environ["AWS_DEFAULT_REGION"] = "eu-west-1"
        requests = _record(settings, generation)
    document = {"version": version, "requests": requests}
    path = FOLDER / f"sdk{generation}.json"
    path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _record(settings: Settings, generation: str) -> dict[str, Any]:
    sent: dict[str, Any] = {}
    session = _session(sent)
    for call in {"2": _version_2, "3": _version_3}[generation](settings, session):
        try:
            call()
        except Exception as error:  # noqa: BLE001 - the SDK fails on the empty responses
            print(f"after {list(sent)[-1]}: {type(error).__name__}: {error}")
    return {name: sent[name] for name in common.OPERATIONS}


def _session(sent: dict[str, Any]) -> boto3.Session:
    """Return a session whose clients record requests instead of sending them."""
    session = boto3.Session("x", "x", region_name="eu-west-1")

    def record(params: Any, model: Any, **_: object) -> None:  # noqa: ANN401 - botocore's own
        sent.setdefault(model.name, json.loads(json.dumps(params, default=str)))

    def answer(model: Any, **_: object) -> tuple[SimpleNamespace, object]:  # noqa: ANN401
        return SimpleNamespace(status_code=200), copy.deepcopy(ANSWERS.get(model.name, {}))

    session.events.register("provide-client-params", record)
    session.events.register("before-call", answer)
    return session


def _version_2(settings: Settings, boto: boto3.Session) -> list[Callable[[], object]]:
    sdk = importlib.import_module("image_classifier.sagemaker.sdk")
    session = importlib.import_module("sagemaker.session").Session(boto)
    channels, tuning = sdk.channels(settings), settings.tuning
    model = sdk.model(settings, common.ARTIFACT, session)
    # By default it is named after the container image, which can be an invalid name.
    model.name = "hands-1"
    transformer = sdk.transformer(settings, "hands-1", common.ANSWERS, session)
    return [
        lambda: sdk.estimator(settings, session).fit(channels, job_name="hands-1", wait=False),
        lambda: sdk.tuner(settings, tuning, session).fit(channels, job_name="hands-1", wait=False),
        lambda: model.deploy(
            settings.endpoint.instance_count,
            settings.endpoint.instance_type,
            endpoint_name="hands-1",
            kms_key=settings.aws.kms_key,
            container_startup_health_check_timeout=600,
            tags=tags(settings),
            wait=False,
        ),
        lambda: transformer.transform(**_transform(settings)),
    ]


def _version_3(settings: Settings, boto: boto3.Session) -> list[Callable[[], object]]:
    sdk = importlib.import_module("examples.sdk3")
    helper = importlib.import_module("sagemaker.core.helper.session_helper")
    session = helper.Session(boto)
    channels, tuning = sdk.channels(settings), settings.tuning
    builder = sdk.model_builder(settings, common.ARTIFACT, session)
    transformer = sdk.transformer(settings, "hands-1", common.ANSWERS, session)
    return [
        lambda: sdk.trainer(settings, session).train(channels, wait=False, logs=False),
        lambda: sdk.tuner(settings, tuning, session).tune(channels, job_name="hands-1", wait=False),
        lambda: builder.build(model_name="hands-1"),
        lambda: builder.deploy(
            endpoint_name="hands-1",
            initial_instance_count=settings.endpoint.instance_count,
            instance_type=settings.endpoint.instance_type,
            container_timeout_in_seconds=600,
            kms_key=settings.aws.kms_key,
            wait=False,
        ),
        lambda: transformer.transform(**_transform(settings), logs=False),
    ]


def _transform(settings: Settings) -> dict[str, Any]:
    return {
        "data": common.IMAGES,
        "content_type": settings.transform.content_type,
        "compression_type": "None",
        "split_type": "None",
        "job_name": "hands-1",
        "wait": False,
    }


if __name__ == "__main__":
    main()
