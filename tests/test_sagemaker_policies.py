"""The policies allow what is called, and little else."""

import json
import re
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.session import get_session
from moto import mock_aws

import image_classifier.sagemaker
from image_classifier.sagemaker.resources import KINDS

FOLDER = Path(image_classifier.sagemaker.__file__).with_name("policies")


def policy(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    return document


def actions(name: str) -> set[str]:
    listed = [each["Action"] for each in policy(name)["Statement"]]
    return {a for each in listed for a in ([each] if isinstance(each, str) else each)}


def called() -> set[str]:
    """Return every operation of SageMaker that the launcher's code names."""
    sources = Path(image_classifier.sagemaker.__file__).parent.glob("*.py")
    words = {w for path in sources for w in re.findall(r'"([A-Z]\w+)"', path.read_text("utf-8"))}
    operations = {
        name
        for service in ("sagemaker", "sagemaker-runtime")
        for name in get_session().get_service_model(service).operation_names
    }
    return words & operations


def test_the_person_may_do_what_the_launcher_calls() -> None:
    assert len(called()) > 20
    assert {f"sagemaker:{name}" for name in called()} <= actions("person.json")
    assert {kind.remove_operation for kind in KINDS} <= called()


def test_nothing_of_the_person_is_called_by_nobody() -> None:
    own = {a.removeprefix("sagemaker:") for a in actions("person.json") if "sagemaker" in a}
    # Creating something with tags needs AddTags; pages of the console need the two others.
    assert own - called() == {"AddTags", "DescribeEndpointConfig", "DescribeModel"}


@pytest.mark.parametrize("name", ["role.json", "person.json"])
def test_no_policy_allows_everything(name: str) -> None:
    for statement in policy(name)["Statement"]:
        assert "*" not in str(statement["Action"])
        is_everywhere = statement["Resource"] == "*"
        # What has no resources, or a condition instead of one.
        assert not is_everywhere or statement["Sid"] in {
            "LogInToTheRegistry",
            "ListWhatThereIs",
            "WriteMetrics",
        }


def test_the_account_takes_them() -> None:
    with mock_aws():
        iam = boto3.client("iam", region_name="eu-west-1")
        iam.create_role(
            RoleName="image-classifier",
            AssumeRolePolicyDocument=json.dumps(policy("role-trust.json")),
        )
        for name in ("role", "person"):
            document = json.dumps(policy(f"{name}.json")).replace("ACCOUNT", "111122223333")
            made = iam.create_policy(PolicyName=name, PolicyDocument=document)
            arn = made["Policy"]["Arn"]
            iam.attach_role_policy(RoleName="image-classifier", PolicyArn=arn)

        attached = iam.list_attached_role_policies(RoleName="image-classifier")

    assert len(attached["AttachedPolicies"]) == 2
