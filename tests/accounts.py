"""An account of moto: its clients, objects and resources. conftest.py has its fixture."""

import io
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.request import Request, urlopen

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from moto.sagemaker.models import sagemaker_backends

from image_classifier.cli import main

MOTO_ACCOUNT = "123456789012"

# Tag of what moto's default user creates.
USER = "user/moto"

MODEL = "s3://my-bucket/a/model.tar.gz"

# moto does not have newer instance types.
ENDPOINT = '[endpoint]\ninstance_type = "ml.m5.large"\n'

IGNORE_OPEN_CONNECTIONS = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
"""boto3 leaves its connections open."""

ON_ACCOUNT = [pytest.mark.usefixtures("account"), IGNORE_OPEN_CONNECTIONS]
"""Marks of a module whose tests all use the account."""


def client(service: str) -> Any:  # noqa: ANN401 - boto3 creates clients at run time
    """Return a client in the account's region."""
    return boto3.client(service, region_name="eu-west-1")


def run(*arguments: object) -> int:
    """Run the command; return its exit code."""
    return main([str(argument) for argument in arguments])


def put(key: str, body: bytes = b"x") -> None:
    """Write an object."""
    client("s3").put_object(Bucket="my-bucket", Key=key, Body=body)


def get(key: str) -> bytes:
    """Return the content of an object, by its key or its address."""
    key = key.removeprefix("s3://my-bucket/")
    body: bytes = client("s3").get_object(Bucket="my-bucket", Key=key)["Body"].read()
    return body


def keys() -> set[str]:
    """Return the keys of all objects."""
    pages = client("s3").get_paginator("list_objects_v2").paginate(Bucket="my-bucket")
    return {each["Key"] for page in pages for each in page.get("Contents", ())}


def backend() -> Any:  # noqa: ANN401 - moto's own
    """Return moto's SageMaker."""
    return sagemaker_backends[MOTO_ACCOUNT]["eu-west-1"]


def answer_with(server: str, body: str) -> None:
    """Set the response of moto's endpoints."""
    results = [{"Body": body, "ContentType": "application/json"}] * 2
    configure_moto(server, "endpoint-results", results)


def configure_moto(server: str, what: str, results: object) -> None:
    """Set the results of moto's endpoints."""
    document = {"region": "eu-west-1", "results": results}
    urlopen(
        Request(
            f"{server}/moto-api/static/sagemaker/{what}",
            data=json.dumps(document).encode(),
            headers={"Content-Type": "application/json"},
        )
    ).close()


# A document, XML as bytes, an error as CODE, CODE: MESSAGE or ModelError: STATUS BODY, or a
# function that returns one of them.
Scripted = Mapping[str, object] | bytes | str | Callable[[], Mapping[str, object] | str]


class StandIn:
    """Scripted responses to calls that moto does not have, or answers with success at once.

    botocore has validated the requests, and parses the responses.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Install the stand-in in boto3's default session."""
        self.requests: list[tuple[str, Any]] = []
        self._scripts: dict[str, list[Scripted]] = {}
        self._session = boto3.Session()
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", self._session)

    def answer(self, operation: str, *script: Scripted) -> None:
        """Answer calls, such as of sagemaker.DescribeEndpoint, in turn; repeat the last answer.

        It replaces the operation's earlier script.
        """
        is_known = operation in self._scripts
        self._scripts[operation] = list(script)
        if is_known:
            return

        def respond(request: Any, **_: object) -> AWSResponse:  # noqa: ANN401 - botocore's own
            is_json = str(request.headers.get("Content-Type", b"")).find("json") > 0
            body = json.loads(request.body) if is_json else request.body
            self.requests.append((operation.rpartition(".")[2], body))
            left = self._scripts[operation]
            answer = left.pop(0) if len(left) > 1 else left[0]
            if callable(answer):
                answer = answer()
            if isinstance(answer, bytes):
                return AWSResponse(request.url, 200, {}, _Raw(answer.decode()))
            if isinstance(answer, str):
                code, message = [*answer.split(": ", 1), "scripted"][:2]
                error: dict[str, object] = {"__type": code, "message": message}
                if code == "ModelError":
                    status, text = message.split(" ", 1)
                    error |= {"OriginalStatusCode": int(status), "OriginalMessage": text}
                return AWSResponse(request.url, 400, {}, _Raw(json.dumps(error)))
            return AWSResponse(request.url, 200, {}, _Raw(json.dumps(answer)))

        self._session.events.register(f"before-send.{operation}", respond)

    def sent(self, operation: str) -> list[Any]:
        """Return the requests of an operation."""
        return [request for name, request in self.requests if name == operation]


class _Raw:
    """A response body with the interface of urllib3."""

    def __init__(self, text: str) -> None:
        body = io.BytesIO(text.encode())
        self.stream = lambda: iter([body.getvalue()])
        self.read = body.read
