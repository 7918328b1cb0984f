"""An account of moto: its clients, objects and resources. conftest.py has its fixture."""

from typing import Any

import boto3
from moto.sagemaker.models import sagemaker_backends

from image_classifier.cli import main

MOTO_ACCOUNT = "123456789012"

# Tag of what moto's default user creates.
USER = "user/moto"


def client(service: str) -> Any:  # noqa: ANN401 - boto3 creates clients at run time
    """Return a client in the account's region."""
    return boto3.client(service, region_name="eu-west-1")


def run(*arguments: object) -> int:
    """Run the command; return its exit code."""
    return main([str(argument) for argument in arguments])


def put(key: str, body: bytes = b"x") -> None:
    """Write an object."""
    client("s3").put_object(Bucket="my-bucket", Key=key, Body=body)


def keys() -> set[str]:
    """Return the keys of all objects."""
    found = client("s3").list_objects_v2(Bucket="my-bucket").get("Contents", [])
    return {each["Key"] for each in found}


def backend() -> Any:  # noqa: ANN401 - moto's own
    """Return moto's SageMaker."""
    return sagemaker_backends[MOTO_ACCOUNT]["eu-west-1"]
