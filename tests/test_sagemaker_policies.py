"""The IAM policies allow the called operations, and little else."""

import json
import re
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.session import get_session
from moto import mock_aws

import image_classifier.sagemaker
from image_classifier.sagemaker.components import NOUN
from image_classifier.sagemaker.resources import KINDS

FOLDER = Path(image_classifier.sagemaker.__file__).with_name("policies")

NAMES = (
    *("role", "role-kms", "role-vpc", "role-pipeline", "role-mlflow"),
    *("person", "person-kms", "scheduler"),
)


def policy(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    return document


def actions(name: str) -> set[str]:
    listed = [each["Action"] for each in policy(name)["Statement"]]
    return {a for each in listed for a in ([each] if isinstance(each, str) else each)}


def called() -> set[str]:
    """Return every SageMaker operation that the code names, or builds from a resource's noun."""
    sources = Path(image_classifier.sagemaker.__file__).parent.glob("*.py")
    words = {w for path in sources for w in re.findall(r'"([A-Z]\w+)"', path.read_text("utf-8"))}
    operations = {
        name
        for service in ("sagemaker", "sagemaker-runtime")
        for name in get_session().get_service_model(service).operation_names
    }
    built = {f"List{noun}s" for noun in KINDS} | {"StopPipelineExecution"}
    built |= {f"{'Stop' if noun.endswith('Job') else 'Delete'}{noun}" for noun in KINDS}
    built |= {f"{verb}{NOUN}" for verb in ("Create", "Delete", "Describe", "Update")}
    assert built <= operations
    return (words & operations) | built


def test_user_policy_allows_every_called_operation() -> None:
    assert len(called()) > 20
    assert {f"sagemaker:{name}" for name in called()} <= actions("person.json")


def test_user_policy_allows_no_operation_that_is_not_called() -> None:
    own = {a.removeprefix("sagemaker:") for a in actions("person.json") if "sagemaker" in a}
    # Creating a tagged resource needs AddTags, and scaling needs the two updates; the console needs
    # the other one.
    scaling = {"UpdateEndpointWeightsAndCapacities", "UpdateInferenceComponentRuntimeConfig"}
    assert own - called() == {"AddTags", "DescribeModel"} | scaling


@pytest.mark.parametrize("name", [f"{name}.json" for name in NAMES])
def test_no_policy_allows_everything_on_every_resource(name: str) -> None:
    for statement in policy(name)["Statement"]:
        assert "*" not in str(statement["Action"])
        is_everywhere = statement["Resource"] == "*"
        # Operations without resources, or with a condition instead.
        assert not is_everywhere or statement["Sid"] in {
            "LogInToTheRegistry",
            "ListWhatThereIs",
            "WriteMetrics",
            "ConnectToTheVpc",
            "ReadQuotas",
            "ReadScalingAndPrices",
        }


def test_iam_accepts_the_policies() -> None:
    with mock_aws():
        iam = boto3.client("iam", region_name="eu-west-1")
        iam.create_role(
            RoleName="image-classifier",
            AssumeRolePolicyDocument=json.dumps(policy("role-trust.json")),
        )
        for name in NAMES:
            document = json.dumps(policy(f"{name}.json")).replace("ACCOUNT", "111122223333")
            made = iam.create_policy(PolicyName=name, PolicyDocument=document)
            arn = made["Policy"]["Arn"]
            iam.attach_role_policy(RoleName="image-classifier", PolicyArn=arn)

        attached = iam.list_attached_role_policies(RoleName="image-classifier")

    assert len(attached["AttachedPolicies"]) == len(NAMES)
