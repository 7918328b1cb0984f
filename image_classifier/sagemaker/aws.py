"""Calls of AWS's APIs: checked first, shown instead in a dry run, and their errors explained."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore import exceptions, xform_name

from container.classifier.errors import UserError
from image_classifier.settings import service_model

# AWS answers in whatever form it likes: what is read of it is looked up by name.
Answer = dict[str, Any]

POLL_SECONDS = 30.0

_ACCESS = "give the person, or the role, what docs/sagemaker.md lists"
_CURES: Mapping[str, str] = {
    "AccessDenied": _ACCESS,
    "AccessDeniedException": _ACCESS,
    "UnauthorizedOperation": _ACCESS,
    "ExpiredToken": "log in again: the credentials are too old",
    "ExpiredTokenException": "log in again: the credentials are too old",
    "InvalidClientTokenId": "the credentials are none of this account: log in, or set AWS_PROFILE",
    "UnrecognizedClientException": "the credentials are none of AWS: log in, or set AWS_PROFILE",
    "ResourceLimitExceeded": "ask for a higher quota (Service Quotas, SageMaker), or take another "
    "instance type or fewer of them",
    "ResourceInUse": "wait until it is done, or `python -m image_classifier delete` it",
    "ResourceNotFound": "`python -m image_classifier status` lists what there is",
    "NoSuchBucket": "make the bucket, or name another one in aws.bucket",
    "ThrottlingException": "wait a minute and try again",
    "ModelError": "the server's own answer; its log is in CloudWatch, /aws/sagemaker/Endpoints",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Aws:
    """The account's APIs in one region."""

    region: str | None = None
    is_dry: bool = False
    """Show every request that would change something, and send none."""
    show: Callable[[str], None] = print
    _clients: dict[str, Any] = field(default_factory=dict)

    def send(
        self, operation: str, request: Mapping[str, object], service: str = "sagemaker"
    ) -> Answer:
        """Check a request and send it; in a dry run print it, and answer nothing.

        Raises:
            UserError: it would be refused, or was; the sentence names AWS's error.
        """
        service_model.check(operation, request, service)
        if self.is_dry:
            self.show(json.dumps({operation: request}, indent=2))
            return {}
        return self.ask(operation, request, service)

    def ask(
        self, operation: str, request: Mapping[str, object], service: str = "sagemaker"
    ) -> Answer:
        """Send a request that changes nothing.

        Raises:
            UserError: AWS refuses it; the sentence names AWS's error.
        """
        with _explained(operation):
            answer: Answer = getattr(self.client(service), xform_name(operation))(**request)
            return answer

    def pages(
        self, operation: str, request: Mapping[str, object], service: str = "sagemaker"
    ) -> Iterator[Answer]:
        """Yield the answers of an operation that lists something."""
        with _explained(operation):
            yield from self.client(service).get_paginator(xform_name(operation)).paginate(**request)

    def client(self, service: str) -> Any:  # noqa: ANN401 - made by boto3 as it runs
        """Return boto3's client of a service.

        Raises:
            UserError: there is no region.
        """
        if service not in self._clients:
            with _explained(f"connecting to {service}"):
                self._clients[service] = boto3.client(service, region_name=self.region)
        return self._clients[service]

    def wait(self, describe: Callable[[], Answer], status: str, running: frozenset[str]) -> Answer:
        """Ask until a status is none of `running`; print every change of it."""
        last = None
        while True:
            answer = describe()
            shown = ", ".join(
                str(answer[key]) for key in (status, "SecondaryStatus") if answer.get(key)
            )
            if shown != last:
                self.show(f"{time.strftime('%H:%M:%S')} {shown}")
                last = shown
            if answer[status] not in running:
                return answer
            time.sleep(POLL_SECONDS)


@contextmanager
def _explained(operation: str) -> Iterator[None]:
    """Make a sentence of what AWS, or the way to it, says."""
    try:
        yield
    except exceptions.ClientError as error:
        raise UserError(refusal(operation, error)) from None
    except exceptions.NoRegionError:
        message = "which region? set aws.region in the settings, or AWS_REGION"
        raise UserError(message) from None
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError):
        message = f"{operation}: no credentials of AWS: `aws configure`, or set AWS_PROFILE"
        raise UserError(message) from None
    except exceptions.BotoCoreError as error:
        message = f"{operation}: {error}"
        raise UserError(message) from None


def refusal(operation: str, error: exceptions.ClientError) -> str:
    """Return what AWS says against an operation, and what to do."""
    code = str(error.response["Error"]["Code"])
    said = str(error.response["Error"].get("Message", "")).strip()
    sentence = f"AWS refused {operation}: {code}: {said}"
    cure = _CURES.get(code)
    if cure is None and "ould not find" in said:
        cure = _CURES["ResourceNotFound"]
    return f"{sentence}: {cure}" if cure else sentence
