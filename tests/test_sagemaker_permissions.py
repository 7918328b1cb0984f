"""The user's policy allows every recorded call with its resource, and not those of others."""

import fnmatch
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest

import image_classifier.sagemaker
from tests.accounts import answer_with, put, run
from tests.settings_files import ACCOUNT, write

pytestmark = [
    pytest.mark.usefixtures("account"),
    # boto3 leaves its connections open.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]

FOLDER = Path(image_classifier.sagemaker.__file__).with_name("policies")
FILLED = {
    "ACCOUNT": ACCOUNT,
    "REGION": "eu-west-1",
    "BUCKET": "my-bucket",
    "ROLE": "image-classifier",
    "NAME": "hands",
}
ENDPOINT = '[endpoint]\ninstance_type = "ml.m5.large"\n'

# Actions of a service that have other names than its operations.
ACTIONS = {"HeadObject": "GetObject", "ListObjectsV2": "ListBucket", "CopyObject": "PutObject"}
ACTIONS |= {"DeleteObjects": "DeleteObject"}
NAMESPACES = {"sagemaker-runtime": "sagemaker"}
SAGEMAKER_KINDS = {
    "TrainingJobName": "training-job",
    "HyperParameterTuningJobName": "hyper-parameter-tuning-job",
    "TransformJobName": "transform-job",
    "ProcessingJobName": "processing-job",
    # CreateEndpoint is allowed for the endpoint and its configuration.
    "EndpointName": "endpoint",
    "EndpointConfigName": "endpoint-config",
    "ModelName": "model",
    "PipelineName": "pipeline",
    "ModelPackageGroupName": "model-package-group",
}


class Calls:
    """Records the operations that the command calls, with their parameters."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Record the calls of boto3's default session."""
        self.found: list[tuple[str, str, dict[str, Any]]] = []
        session = boto3.Session()
        session.events.register("provide-client-params.*.*", self._record)
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", session)

    def _record(self, params: dict[str, Any], model: Any, **_: object) -> None:  # noqa: ANN401
        service = str(model.service_model.service_name)
        self.found.append((service, str(model.name), dict(params)))

    def requests(self) -> Iterator[tuple[str, str, Mapping[str, str]]]:
        """Yield action, resource and condition keys of every call."""
        for service, operation, params in self.found:
            namespace = NAMESPACES.get(service, service)
            action = f"{namespace}:{ACTIONS.get(operation, operation)}"
            for resource in resources(namespace, operation, params):
                keys = {"s3:prefix": params["Prefix"]} if "Prefix" in params else {}
                yield action, resource, keys
            if "RoleArn" in params or "ExecutionRoleArn" in params:
                role = params.get("RoleArn") or params["ExecutionRoleArn"]
                yield "iam:PassRole", role, {"iam:PassedToService": "sagemaker.amazonaws.com"}


def resources(namespace: str, operation: str, params: Mapping[str, Any]) -> Iterator[str]:
    """Yield the ARNs that a call needs permissions for; `*` for operations without resources."""
    here = f"{namespace}:eu-west-1:{ACCOUNT}"
    if namespace == "s3":
        bucket = f"arn:aws:s3:::{params['Bucket']}"
        listed = [each["Key"] for each in params.get("Delete", {}).get("Objects", [])]
        listed += [params["Key"]] if "Key" in params else []
        yield from [f"{bucket}/{key}" for key in listed] or [bucket]
    elif namespace == "logs":
        yield f"arn:aws:{here}:log-group:{params['logGroupName']}"
    elif operation.startswith("List") and operation not in {"ListTags", "ListPipelineExecutions"}:
        named = params.get("HyperParameterTuningJobName")
        yield f"arn:aws:{here}:hyper-parameter-tuning-job/{named}" if named else "*"
    elif "ResourceArn" in params:
        # moto has a separate account.
        yield params["ResourceArn"].replace("123456789012", ACCOUNT)
    else:
        kinds = [(kind, params[key]) for key, kind in SAGEMAKER_KINDS.items() if key in params]
        if operation in {"UpdateEndpoint", "CreateEndpoint"} or kinds:
            yield from (f"arn:aws:{here}:{kind}/{name}" for kind, name in kinds)


def is_allowed(
    action: str, resource: str, keys: Mapping[str, str], policy: str = "person.json"
) -> bool:
    """Return whether a policy, by default the user's, allows an action."""
    text = (FOLDER / policy).read_text(encoding="utf-8")
    for placeholder, value in FILLED.items():
        text = text.replace(placeholder, value)
    return any(_allows(each, action, resource, keys) for each in json.loads(text)["Statement"])


def _allows(
    statement: Mapping[str, Any], action: str, resource: str, keys: Mapping[str, str]
) -> bool:
    def listed(key: str) -> list[str]:
        value = statement[key]
        return [value] if isinstance(value, str) else value

    conditions = [pair for each in statement.get("Condition", {}).values() for pair in each.items()]
    return (
        any(fnmatch.fnmatchcase(action, each) for each in listed("Action"))
        and any(fnmatch.fnmatchcase(resource, each) for each in listed("Resource"))
        and all(fnmatch.fnmatchcase(keys.get(key, ""), value) for key, value in conditions)
    )


def test_every_recorded_call_is_allowed(
    account: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(monkeypatch)
    settings, image = write(tmp_path, ENDPOINT), tmp_path / "a.png"
    image.write_bytes(b"png")
    prediction = {"class_name": "a", "probability": 1.0, "probabilities": [1.0]}
    answer_with(account, json.dumps({"predictions": [prediction], "class_names": ["a"]}))
    put("hands/images/a.png")

    assert run("train", settings) == 0
    assert run("pipeline", settings, "--start") == 0
    assert run("deploy", settings) == 0
    assert run("predict", settings, image) == 0
    assert run("transform", settings, "s3://my-bucket/hands/images/") == 0
    assert run("status", settings) == 0
    run("report", settings)
    run("logs", settings)
    assert run("delete", settings, "--yes") == 0

    requests = [found for found in calls.requests() if found[0] != "sts:GetCallerIdentity"]
    assert len({action for action, _, _ in requests}) > 20
    assert [each for each in requests if not is_allowed(*each)] == []


@pytest.mark.parametrize(
    ("action", "resource", "keys"),
    [
        ("s3:GetObject", "arn:aws:s3:::my-bucket/hands-2/output/model.tar.gz", {}),
        ("s3:ListBucket", "arn:aws:s3:::my-bucket", {"s3:prefix": ""}),
        ("s3:ListBucket", "arn:aws:s3:::my-bucket", {"s3:prefix": "other/"}),
        ("sagemaker:DeleteEndpoint", f"arn:aws:sagemaker:eu-west-1:{ACCOUNT}:endpoint/other", {}),
        ("sagemaker:DeleteEndpoint", f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint/hands", {}),
        ("sagemaker:CreateNotebookInstance", "*", {}),
        ("logs:FilterLogEvents", f"arn:aws:logs:eu-west-1:{ACCOUNT}:log-group:/aws/lambda/x", {}),
        (
            "iam:PassRole",
            f"arn:aws:iam::{ACCOUNT}:role/image-classifier",
            {"iam:PassedToService": "ec2.amazonaws.com"},
        ),
    ],
)
def test_nothing_of_others_is_allowed(action: str, resource: str, keys: Mapping[str, str]) -> None:
    assert not is_allowed(action, resource, keys)


JOB = "hands-kytlemm1lvpq-cIpzShs3Qp-0"


@pytest.mark.parametrize(
    ("action", "resource", "expected"),
    [
        ("sagemaker:CreateProcessingJob", f"processing-job/{JOB}", True),
        ("sagemaker:CreateTrainingJob", f"training-job/{JOB}", True),
        ("sagemaker:StopTrainingJob", f"training-job/{JOB}", True),
        ("sagemaker:CreateModelPackage", "model-package-group/hands", True),
        ("sagemaker:CreateTrainingJob", "training-job/pipelines-kytlemm1lvpq-Train-x", False),
        ("sagemaker:CreateModelPackage", "model-package-group/hands-2", False),
        ("sagemaker:UpdateModelPackage", "model-package/hands/1", False),
        ("sagemaker:CreateEndpoint", "endpoint/hands", False),
    ],
)
def test_role_of_a_pipeline_runs_its_steps_and_nothing_else(
    action: str, resource: str, *, expected: bool
) -> None:
    arn = f"arn:aws:sagemaker:eu-west-1:{ACCOUNT}:{resource}"
    assert is_allowed(action, arn, {}, "role-pipeline.json") is expected
