"""The policies allow every recorded call with its resource, and those of nothing else."""

import fnmatch
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest

import image_classifier.sagemaker
from image_classifier.sagemaker import aws
from tests.accounts import (
    ENDPOINT,
    MOTO_ACCOUNT,
    ON_ACCOUNT,
    StandIn,
    answer_with,
    client,
    configure_moto,
    get,
    put,
    run,
)
from tests.settings_files import ACCOUNT, BEGINNING, write
from tests.test_sagemaker_preflight import DOCKER, images, quotas, simulated, trust
from tests.test_sagemaker_registry import MANIFEST, put_artifact

pytestmark = ON_ACCOUNT

FOLDER = Path(image_classifier.sagemaker.__file__).with_name("policies")
FILLED = {
    "ACCOUNT": ACCOUNT,
    "REGION": "eu-west-1",
    "BUCKET": "my-bucket",
    "ROLE": "image-classifier",
    "SCHEDULER": "scheduler",
    "NAME": "hands",
    "KEY": "1234abcd",
}
USER = ("person.json", "person-kms.json")

SCHEDULER = f"arn:aws:iam::{ACCOUNT}:role/scheduler"
KEY = f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/1234abcd"
AWS = f"""scheduler_role = "{SCHEDULER}"
kms_key = "1234abcd"
subnets = ["subnet-1"]
security_groups = ["sg-1"]

[images]"""
# Actions of a service that have other names than its operations.
ACTIONS = {"HeadObject": "GetObject", "ListObjectsV2": "ListBucket", "CopyObject": "PutObject"}
ACTIONS |= {"DeleteObjects": "DeleteObject"}
NAMESPACES = {
    "sagemaker-runtime": "sagemaker",
    "service-quotas": "servicequotas",
    "monitoring": "cloudwatch",
}
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
    "InferenceComponentName": "inference-component",
}

# Keys with ARNs as their values.
ARNS = ("ResourceArn", "ModelPackageArn", "ModelPackageName")

# Operations without resources.
EVERYWHERE = {"DescribeScalableTargets", "GetProducts", "ListServiceQuotas"}

# What SageMaker does with a user's permissions when it encrypts disks and writes with a key.
KMS = ("kms:CreateGrant", "kms:DescribeKey")


class Calls:
    """Records the operations that the command calls, with their parameters."""

    def __init__(self) -> None:
        """Record the calls of boto3's default session."""
        self.found: list[tuple[str, str, dict[str, Any]]] = []
        boto3.DEFAULT_SESSION.events.register("provide-client-params.*.*", self._record)

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
                if "ServiceNamespace" in params:
                    keys = {f"{namespace}:service-namespace": params["ServiceNamespace"]}
                yield action, resource, keys
            if operation == "CopyObject":
                source = params["CopySource"]
                yield "s3:GetObject", f"arn:aws:s3:::{source['Bucket']}/{source['Key']}", {}
            target = params.get("Target", params)
            if role := target.get("RoleArn") or target.get("ExecutionRoleArn"):
                receiver = "scheduler" if namespace == "scheduler" else "sagemaker"
                keys = {"iam:PassedToService": f"{receiver}.amazonaws.com"}
                yield "iam:PassRole", role, keys
            if "KmsKeyId" in json.dumps(params, default=str):
                yield from ((action, KEY, {}) for action in KMS)
            elif operation == "GetObject":
                # It is encrypted with the key of the settings.
                yield "kms:Decrypt", KEY, {}


HERE = f"eu-west-1:{ACCOUNT}"

# ARNs of the resources of calls to services with one kind of them.
RESOURCES: Mapping[str, Callable[[Any], list[str]]] = {
    "logs": lambda params: [f"arn:aws:logs:{HERE}:log-group:{params['logGroupName']}"],
    "iam": lambda params: [
        params.get("PolicySourceArn") or f"arn:aws:iam::{ACCOUNT}:role/{params['RoleName']}"
    ],
    "ecr": lambda params: [f"arn:aws:ecr:{HERE}:repository/{params['repositoryName']}"],
    "scheduler": lambda params: [f"arn:aws:scheduler:{HERE}:schedule/default/{params['Name']}"],
    "application-autoscaling": lambda _: [
        f"arn:aws:application-autoscaling:{HERE}:scalable-target/0a1b"
    ],
    "cloudwatch": lambda params: [
        f"arn:aws:cloudwatch:{HERE}:alarm:{name}"
        for name in params.get("AlarmNames") or [params["AlarmName"]]
    ],
}


def resources(namespace: str, operation: str, params: Mapping[str, Any]) -> Iterator[str]:
    """Yield the ARNs that a call needs permissions for; `*` for operations without resources."""
    if operation in EVERYWHERE:
        yield "*"
    elif namespace in RESOURCES:
        yield from RESOURCES[namespace](params)
    elif namespace == "s3":
        bucket = f"arn:aws:s3:::{params['Bucket']}"
        keys = [each["Key"] for each in params.get("Delete", {}).get("Objects", [])]
        keys += [params["Key"]] if "Key" in params else []
        yield from [f"{bucket}/{key}" for key in keys] or [bucket]
    elif operation.startswith("List") and operation not in {"ListTags", "ListPipelineExecutions"}:
        named = params.get("HyperParameterTuningJobName")
        yield f"arn:aws:sagemaker:{HERE}:hyper-parameter-tuning-job/{named}" if named else "*"
    else:
        arns = [params[key] for key in ARNS if key in params]
        # moto has a separate account.
        yield from (arn.replace(MOTO_ACCOUNT, ACCOUNT) for arn in arns)
        kinds = [(kind, params[key]) for key, kind in SAGEMAKER_KINDS.items() if key in params]
        yield from (f"arn:aws:sagemaker:{HERE}:{kind}/{name}" for kind, name in kinds)


def statements(*names: str) -> list[Mapping[str, Any]]:
    """Return the statements of policies, with the values of the settings."""
    found: list[Mapping[str, Any]] = []
    for name in names:
        text = (FOLDER / name).read_text(encoding="utf-8")
        for placeholder, value in FILLED.items():
            text = text.replace(placeholder, value)
        found += json.loads(text)["Statement"]
    return found


def is_allowed(
    action: str, resource: str, keys: Mapping[str, str], policies: tuple[str, ...] = USER
) -> bool:
    """Return whether policies allow an action, by default those of the user."""
    return any(_allows(each, action, resource, keys) for each in statements(*policies))


def _allows(
    statement: Mapping[str, Any], action: str, resource: str, keys: Mapping[str, str]
) -> bool:
    conditions = [pair for each in statement.get("Condition", {}).values() for pair in each.items()]
    return (
        any(fnmatch.fnmatchcase(action, each) for each in listed(statement["Action"]))
        and any(fnmatch.fnmatchcase(resource, each) for each in listed(statement["Resource"]))
        and all(
            any(fnmatch.fnmatchcase(keys.get(key, ""), each) for each in listed(value))
            for key, value in conditions
        )
    )


def listed(value: str | list[str]) -> list[str]:
    """Return a value, or a list of them, as a list."""
    return [value] if isinstance(value, str) else value


TIME_IN_NAMES = "%y%m%d-%H%M%S"


@pytest.fixture
def stand_in(account: str, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """What moto lacks, for `check --account` and for prices."""
    assert account
    monkeypatch.setattr(aws, "POLL_SECONDS", 0)
    # Two resources have different times in their names, also within a second.
    strftime, numbers = time.strftime, itertools.count()

    def numbered(form: str, *moment: time.struct_time) -> str:
        return f"{next(numbers):06}-000000" if form == TIME_IN_NAMES else strftime(form, *moment)

    monkeypatch.setattr("time.strftime", numbered)
    stand_in = StandIn(monkeypatch)
    client("iam").create_role(RoleName="image-classifier", AssumeRolePolicyDocument=trust())
    quotas(stand_in, 1)
    simulated(stand_in, "allowed")
    images(stand_in, DOCKER, "amd64")
    stand_in.answer("pricing.GetProducts", {"PriceList": []})
    stand_in.answer("sagemaker.UpdateEndpoint", {"EndpointArn": "arn:aws:sagemaker:eu-west-1:1:e"})
    return stand_in


@pytest.fixture
def calls(stand_in: StandIn) -> Calls:
    """The calls of the session of the stand-in."""
    assert stand_in
    return Calls()


# Settings with a VPC and a key, of an asynchronous endpoint that scales to zero.
EVERYTHING = f"""{ENDPOINT}kind = "asynchronous"
[endpoint.scaling]
min_instances = 0
"""
COMPONENT = ("--set", "endpoint.kind=real-time")
REAL_TIME = ("--set", "endpoint.kind=real-time", "--set", "endpoint.scaling.min_instances=1")


def record(calls: Calls, account: str, tmp_path: Path) -> set[tuple[str, str, tuple[Any, ...]]]:
    """Run the verbs; return the action, resource and condition keys of every call."""
    settings, image = (
        write(tmp_path, EVERYTHING, BEGINNING.replace("[images]", AWS)),
        tmp_path / "a.png",
    )
    image.write_bytes(b"png")
    prediction = {"class_name": "a", "probability": 1.0, "probabilities": [1.0]}
    answer = json.dumps({"predictions": [prediction], "class_names": ["a"]})
    answer_with(account, answer)
    configure_moto(account, "async-endpoint-results", [{"data": answer}])
    put_artifact(MANIFEST)
    packed = get("a/model.tar.gz")
    put("hands/a/model.tar.gz", packed)
    for key in ("images/a.png", "data/training/a/1.png", "data/validation/a/1.png"):
        put(f"hands/{key}")
    model = ("--job", "s3://my-bucket/hands/a/model.tar.gz")
    del calls.found[:]

    assert run("check", settings, "--account") == 0
    assert run("train", settings) == 0
    assert run("pipeline", settings, "--start") == 0
    assert run("register", settings, *model) == 0
    assert run("approve", settings) == 0
    assert run("deploy", settings, "--version", 1, "--expires", "2h") == 0
    # The stand-in does not update the endpoint.
    assert run("deploy", settings, *model, "--expires", "3h") == 1
    assert run("predict", settings, image) == 0
    assert run("predict", settings, image, *REAL_TIME) == 0
    assert run("transform", settings, "s3://my-bucket/hands/images/") == 0
    assert run("cost", settings) == 0
    assert run("status", settings) == 0
    run("report", settings)
    run("logs", settings)
    assert run("delete", settings, "--yes") == 0
    put("hands/a/model.tar.gz", packed)
    for _ in ("new", "update"):
        assert run("deploy", settings, *COMPONENT, *model) == 0
    assert run("predict", settings, image, *COMPONENT) == 0
    assert run("delete", settings, "--yes") == 0
    return {(action, arn, tuple(keys.items())) for action, arn, keys in calls.requests()}


# What push.sh calls, what Application Auto Scaling requires of users, and what needs no permission.
OTHERS = {
    f"ecr:{action}"
    for action in (
        "BatchCheckLayerAvailability",
        "CompleteLayerUpload",
        "CreateRepository",
        "DescribeRepositories",
        "GetAuthorizationToken",
        "InitiateLayerUpload",
        "PutImage",
        "PutLifecyclePolicy",
        "UploadLayerPart",
    )
} | {"iam:CreateServiceLinkedRole"}


@pytest.mark.usefixtures("stand_in")
def test_every_recorded_call_is_allowed_and_nothing_else(
    account: str, tmp_path: Path, calls: Calls
) -> None:
    requests = record(calls, account, tmp_path)

    # moto writes asynchronous answers to a separate bucket.
    free = {each for each in requests if "sts:Get" in each[0] or ":sagemaker-output-" in each[1]}
    assert [each for each in requests - free if not is_allowed(*each[:2], dict(each[2]))] == []
    called = {action for action, _, _ in requests - free}
    granted = {action for each in statements(*USER) for action in listed(each["Action"])}
    # test_sagemaker_policies.py compares those of SageMaker with the code.
    unused = {action for action in granted - called if not action.startswith("sagemaker:")}
    assert unused == OTHERS
    for action in ("UpdateModelPackage", "DescribeModelPackage", "UpdateInferenceComponent"):
        assert f"sagemaker:{action}" in called
    # Without the policy for keys, the settings' key is not allowed.
    assert not is_allowed("kms:Decrypt", KEY, {}, ("person.json",))


def test_schedule_may_delete_this_endpoint_and_nothing_else() -> None:
    (statement,) = statements("scheduler.json")
    arn = f"arn:aws:sagemaker:eu-west-1:{ACCOUNT}:endpoint/hands"
    assert (statement["Action"], statement["Resource"]) == ("sagemaker:DeleteEndpoint", arn)
    (trusted,) = statements("scheduler-trust.json")
    assert trusted["Principal"] == {"Service": "scheduler.amazonaws.com"}
    assert trusted["Condition"] == {"StringEquals": {"aws:SourceAccount": ACCOUNT}}


@pytest.mark.parametrize(
    ("action", "resource", "keys"),
    [
        ("s3:GetObject", "arn:aws:s3:::my-bucket/hands-2/output/model.tar.gz", {}),
        ("s3:ListBucket", "arn:aws:s3:::my-bucket", {"s3:prefix": ""}),
        ("s3:ListBucket", "arn:aws:s3:::my-bucket", {"s3:prefix": "other/"}),
        ("sagemaker:DeleteEndpoint", f"arn:aws:sagemaker:eu-west-1:{ACCOUNT}:endpoint/other", {}),
        ("sagemaker:DeleteEndpoint", f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint/hands", {}),
        ("sagemaker:CreateNotebookInstance", "*", {}),
        (
            "scheduler:DeleteSchedule",
            f"arn:aws:scheduler:eu-west-1:{ACCOUNT}:schedule/default/nightly",
            {},
        ),
        (
            "application-autoscaling:DeregisterScalableTarget",
            f"arn:aws:application-autoscaling:eu-west-1:{ACCOUNT}:scalable-target/0a1b",
            {"application-autoscaling:service-namespace": "ecs"},
        ),
        ("cloudwatch:DeleteAlarms", f"arn:aws:cloudwatch:eu-west-1:{ACCOUNT}:alarm:errors", {}),
        ("iam:PassRole", SCHEDULER, {"iam:PassedToService": "sagemaker.amazonaws.com"}),
        ("kms:Decrypt", f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/other", {}),
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
    assert is_allowed(action, arn, {}, ("role-pipeline.json",)) is expected
