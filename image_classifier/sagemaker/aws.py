"""Calls to AWS APIs: validated first, printed in a dry run, with errors that suggest a fix."""

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore import exceptions, xform_name
from botocore.config import Config

from container.classifier.errors import UserError
from image_classifier.sagemaker.request_fields import CREATOR_TAG, creator
from image_classifier.settings import service_model

# Responses are read by key: botocore has no types for them.
Response = dict[str, Any]

POLL_SECONDS = 10.0

# Statuses of jobs that change without a request.
_CHANGING = frozenset({"InProgress", "Stopping", "Pending"})

TRANSFER_THREADS = 16
# Rejected calls are repeated with growing pauses, up to 20 s: accounts are throttled as a whole.
_RETRIES: Any = {"mode": "standard", "total_max_attempts": 8}

_QUICK: Any = {"connect_timeout": 5, "read_timeout": 10, "retries": {"total_max_attempts": 2}}

_ACCESS = "grant the user, or the role, the permissions that docs/how-to/deploy.md lists"

_REMEDIES: Mapping[str, str] = {
    "AccessDenied": _ACCESS,
    "AccessDeniedException": _ACCESS,
    "UnauthorizedOperation": _ACCESS,
    "ExpiredToken": "log in again: the credentials have expired",
    "ExpiredTokenException": "log in again: the credentials have expired",
    "InvalidClientTokenId": "the credentials are invalid: log in, or set AWS_PROFILE",
    "UnrecognizedClientException": "the credentials are invalid: log in, or set AWS_PROFILE",
    "ResourceLimitExceeded": "request a higher quota (Service Quotas, SageMaker), or use another "
    "instance type or fewer instances",
    "ResourceInUse": "wait until it is done, or `image-classifier delete` it",
    "ResourceNotFound": "`image-classifier status` lists the resources",
    "NoSuchBucket": "create the bucket, or name another one",
    "ThrottlingException": "AWS limits the account's calls: wait a minute and try again",
    "ModelError": "the server returned it; its log is in CloudWatch, /aws/sagemaker/Endpoints",
}


class NoAccountError(UserError):
    """A region or credentials are missing."""


class RejectionError(UserError):
    """AWS rejected a request."""

    def __init__(self, message: str, response: Mapping[str, Any]) -> None:
        """Set the message, and code and reason of AWS's response."""
        super().__init__(message)
        self.code = str(response["Error"]["Code"])
        self.reason = str(response["Error"].get("Message", ""))


class ModelError(RejectionError):
    """The server of an endpoint returned an error."""

    def __init__(self, message: str, response: Mapping[str, Any]) -> None:
        """Set the status and the body of the server's response too."""
        super().__init__(message, response)
        self.status: int = response["OriginalStatusCode"]
        self.body: str = response["OriginalMessage"]


@dataclass(kw_only=True, slots=True)
class Aws:
    """The account's APIs in one region."""

    region: str | None = None
    is_dry: bool = False
    """Print every request that would change something, and send none."""
    show: Callable[[str], None] = print
    _clients: dict[str, Any] = field(default_factory=dict)
    _creator: str | None = None

    def send(
        self, operation: str, request: Mapping[str, object], service: str = "sagemaker"
    ) -> Response:
        """Validate a request and send it; in a dry run print it.

        The resource that a request creates has a tag with its creator.

        Returns:
            The response; in a dry run an empty one.

        Raises:
            UserError: the request is invalid, or AWS rejected it.
        """
        request = self.tagged(request)
        service_model.check(operation, request, service)
        if not self.is_dry:
            return self.query(operation, request, service)
        self.show_request(operation, request)
        return {}

    def tagged(self, request: Mapping[str, object]) -> Mapping[str, object]:
        """Return a request with its creator among the tags, if it has tags."""
        if "Tags" not in request:
            return request
        tag = {"Key": CREATOR_TAG, "Value": self._known_creator()}
        return {**request, "Tags": [*request["Tags"], tag]}  # type: ignore[misc]

    def show_request(self, operation: str, request: Mapping[str, object]) -> None:
        """Print a request that a dry run does not send, with a pipeline's definition as JSON."""
        if "PipelineDefinition" in request:
            definition = json.loads(str(request["PipelineDefinition"]))
            request = {**request, "PipelineDefinition": definition}
        self.show(json.dumps({operation: request}, indent=2))

    def show_placeholder(self, what: str, value: str) -> None:
        """Print what a dry run uses in place of something that it lacks."""
        self.show(f"placeholder for {what}: {value}")

    def query(
        self, operation: str, request: Mapping[str, object], service: str = "sagemaker"
    ) -> Response:
        """Send a request, in a dry run too.

        Raises:
            UserError: AWS rejected it.
        """
        with explained(operation):
            response: Response = getattr(self.client(service), xform_name(operation))(**request)
            return response

    def query_unless(
        self, codes: Collection[str], operation: str, request: Mapping[str, object], service: str
    ) -> Response | None:
        """Send a request, in a dry run too; return None if AWS rejects it with one of the codes.

        `codes` can also have parts of messages, where a code is too general.

        Raises:
            UserError: AWS rejected it for another reason.
        """
        try:
            return self.query(operation, request, service)
        except RejectionError as error:
            if error.code not in codes and not any(part in error.reason for part in codes):
                raise
            return None

    def creator(self) -> str:
        """Return the value of the creator's tag for the current credentials, in a dry run too.

        Raises:
            UserError: AWS rejected the credentials.
        """
        if self._creator is None:
            self._creator = creator(self.query("GetCallerIdentity", {}, "sts")["Arn"])
        return self._creator

    def _known_creator(self) -> str:
        if self.is_dry and self._creator is None:
            self._creator = "CREATOR"
            self.show_placeholder("your name in IAM", "CREATOR")
        return self.creator()

    def pages(
        self, operation: str, request: Mapping[str, object], service: str = "sagemaker"
    ) -> Iterator[Response]:
        """Yield the pages of an operation that lists something."""
        with explained(operation):
            yield from self.client(service).get_paginator(xform_name(operation)).paginate(**request)

    def client(self, service: str) -> Any:  # noqa: ANN401 - boto3 creates clients at run time
        """Return boto3's client of a service.

        Raises:
            UserError: no region is set.
        """
        if service not in self._clients:
            connections = TRANSFER_THREADS if service == "s3" else 10
            options: dict[str, Any] = {"max_pool_connections": connections, "retries": _RETRIES}
            region = self.region
            if service == "pricing":
                # It has the prices of all regions, and a table is used if it does not respond.
                region, options = "us-east-1", _QUICK
            with explained(f"connecting to {service}"):
                self._clients[service] = boto3.client(
                    service, region_name=region, config=Config(**options)
                )
        return self._clients[service]

    def wait(
        self,
        operation: str,
        name: str,
        hint: str = "",
        on_poll: Callable[[], None] = lambda: None,
    ) -> Response:
        """Poll a job until its status is final; print every change of it.

        Args:
            operation: describes it, such as DescribeTrainingJob.
            name: name of the job.
            hint: end of the message about a failure.
            on_poll: called after each request.

        Raises:
            UserError: the job failed, or was stopped.
        """
        noun = operation.removeprefix("Describe")
        last = None
        while True:
            response = self.query(operation, {f"{noun}Name": name})
            status = response[f"{noun}Status"]
            shown = ", ".join(filter(None, (status, response.get("SecondaryStatus"))))
            if shown != last:
                self.show(f"{time.strftime('%H:%M:%S')} {shown}")
                last = shown
            on_poll()
            if status == "Failed":
                reason = response.get("FailureReason", "no reason given")
                raise UserError(f"{name} failed: {reason}{hint}")
            if status == "Stopped":
                reason = response.get("SecondaryStatus", status)
                raise UserError(f"{name} was stopped before its end ({reason}){hint}")
            if not is_changing(status):
                return response
            time.sleep(POLL_SECONDS)

    def container_image(self, framework: str) -> str:
        """Return the URI of AWS's container image `debugger` or `clarify` in this region.

        In a dry run without the SageMaker SDK, a placeholder names it.

        Raises:
            UserError: the SageMaker SDK is not installed.
        """
        try:
            from sagemaker import image_uris  # noqa: PLC0415 - optional, and takes seconds
        except ImportError:
            if self.is_dry:
                placeholder = f"111122223333.dkr.ecr.PLACEHOLDER.amazonaws.com/{framework}"
                self.show_placeholder(f"AWS's container image {framework}", placeholder)
                return placeholder
            raise UserError(
                f"the address of AWS's container image {framework} is in the SageMaker SDK: "
                "install the dependency group sdk (pip install 'sagemaker>=2.257,<3')"
            ) from None
        return str(image_uris.retrieve(framework, self.client("sagemaker").meta.region_name))


def is_changing(status: str) -> bool:
    """Return whether a job with this status still runs, or will."""
    return status in _CHANGING


@contextmanager
def explained(operation: str) -> Iterator[None]:
    """Turn errors of botocore into messages that suggest a fix."""
    try:
        yield
    except exceptions.ClientError as error:
        code = str(error.response["Error"]["Code"])
        reason = str(error.response["Error"].get("Message", "")).strip()
        remedy = _REMEDIES.get(code)
        if remedy is None and "ould not find" in reason:
            remedy = _REMEDIES["ResourceNotFound"]
        message = f"AWS rejected {operation}: {code}: {reason}"
        message = f"{message}: {remedy}" if remedy else message
        kind = ModelError if "OriginalStatusCode" in error.response else RejectionError
        raise kind(message, error.response) from None
    except exceptions.NoRegionError:
        raise NoAccountError("no region: set aws.region in the settings, or AWS_REGION") from None
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError):
        raise NoAccountError(
            f"{operation}: no AWS credentials: run `aws configure`, or set AWS_PROFILE"
        ) from None
    except exceptions.BotoCoreError as error:
        raise UserError(f"{operation}: {error}") from None
