"""Where the model is asked: a server by its address, or an endpoint on SageMaker."""

import time
from http import HTTPStatus
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

import boto3
import botocore.config
import botocore.exceptions
import urllib3
import urllib3.exceptions

from container.classifier.errors import UserError
from image_classifier.explainer.analysis import Predictor

# A busy endpoint is asked again for a minute or so, then it is given up.
ATTEMPTS = 30
MOST_SECONDS_BETWEEN = 10
TIMEOUT_SECONDS = 120

BUSY = (
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)

MAX_SHOWN = 500


class Answer(NamedTuple):
    """A body and its type, without parameters."""

    body: bytes
    media_type: str


class RefusedError(UserError):
    """The endpoint will not have this request, whoever asks."""


class Endpoint(Protocol):
    """Something that answers requests."""

    @property
    def name(self) -> str:
        """For people."""

    def ask(self, body: bytes, content_type: str, accept: str) -> Answer:
        """Return the answer to a request; several threads may ask at a time.

        Raises:
            RefusedError: the request's content is at fault.
            UserError: there is no answer.
        """


class HttpEndpoint:
    """A server of SageMaker's contract at an address."""

    def __init__(self, url: str, *, parallel: int) -> None:
        """Take `http://host:port` or the whole address of the model.

        Raises:
            UserError: it is no address.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            message = f"the address must look like http://localhost:8080, got {url!r}"
            raise UserError(message)
        self.name = url if parts.path.strip("/") else f"{url.rstrip('/')}/invocations"
        self._pool = urllib3.PoolManager(
            maxsize=parallel,
            block=True,
            timeout=TIMEOUT_SECONDS,
            retries=urllib3.Retry(
                total=ATTEMPTS,
                connect=2,
                read=2,
                redirect=0,
                # What is busy says by Retry-After when to come back.
                status_forcelist=[int(status) for status in BUSY],
                allowed_methods=None,
                backoff_factor=0.2,
                backoff_max=MOST_SECONDS_BETWEEN,
                retry_after_max=MOST_SECONDS_BETWEEN,
                raise_on_status=False,
            ),
        )

    def ask(self, body: bytes, content_type: str, accept: str) -> Answer:
        """Return the answer to a request."""
        headers = {"Content-Type": content_type, "Accept": accept}
        try:
            response = self._pool.request("POST", self.name, body=body, headers=headers)
        except urllib3.exceptions.HTTPError as error:
            reason = error.reason if isinstance(error, urllib3.exceptions.MaxRetryError) else error
            message = f"no answer from {self.name} ({reason}): is the server running?"
            raise UserError(message) from error
        _check(self.name, response.status, response.data)
        return Answer(response.data, _media_type(response.headers.get("Content-Type"), accept))


class SageMakerEndpoint:
    """An endpoint of an AWS account."""

    def __init__(self, predictor: Predictor, *, region: str | None, parallel: int) -> None:
        """Find the account by boto3's usual ways.

        Raises:
            UserError: the configuration names no endpoint, or no region is known.
        """
        if predictor.endpoint_name is None:
            message = (
                "which model? Give --url http://localhost:8080, --endpoint NAME, "
                "or a configuration with predictor.endpoint_name"
            )
            raise UserError(message)
        self.name = predictor.endpoint_name
        given = {
            "EndpointName": predictor.endpoint_name,
            "TargetModel": predictor.target_model,
            "CustomAttributes": predictor.custom_attributes,
        }
        self._given = {name: value for name, value in given.items() if value is not None}
        config = botocore.config.Config(
            max_pool_connections=parallel,
            read_timeout=TIMEOUT_SECONDS,
            retries={"mode": "adaptive", "max_attempts": 10},
        )
        try:
            self._client = boto3.client("sagemaker-runtime", region_name=region, config=config)
        except botocore.exceptions.NoRegionError as error:
            message = "no AWS region is set: give --region or set AWS_DEFAULT_REGION"
            raise UserError(message) from error

    def ask(self, body: bytes, content_type: str, accept: str) -> Answer:
        """Return the answer to a request."""
        request = {**self._given, "Body": body, "ContentType": content_type, "Accept": accept}
        for attempt in range(ATTEMPTS):
            try:
                response = self._client.invoke_endpoint(**request)
                return Answer(
                    response["Body"].read(), _media_type(response.get("ContentType"), accept)
                )
            except botocore.exceptions.ClientError as error:
                # What the container answered; boto3 has asked again where the service was busy.
                status = error.response.get("OriginalStatusCode")
                if status not in BUSY or attempt == ATTEMPTS - 1:
                    raise _explained(self.name, error) from error
            except botocore.exceptions.BotoCoreError as error:
                message = f"no answer from the endpoint {self.name}: {error}"
                raise UserError(message) from error
            time.sleep(min(0.2 * 2**attempt, MOST_SECONDS_BETWEEN))
        raise AssertionError


def _explained(name: str, error: botocore.exceptions.ClientError) -> UserError:
    status = error.response.get("OriginalStatusCode")
    said = error.response.get("OriginalMessage") or error.response["Error"].get("Message", "")
    message = f"the endpoint {name} answered {error.response['Error']['Code']}: {said[:MAX_SHOWN]}"
    return RefusedError(message) if status and _is_refusal(status) else UserError(message)


def _check(name: str, status: int, body: bytes) -> None:
    if status == HTTPStatus.OK:
        return
    said = body[:MAX_SHOWN].decode(errors="replace").strip()
    message = f"{name} answered {status}: {said}"
    raise RefusedError(message) if _is_refusal(status) else UserError(message)


def _is_refusal(status: int) -> bool:
    return status // 100 == HTTPStatus.BAD_REQUEST // 100 and status not in BUSY


def _media_type(content_type: str | None, accept: str) -> str:
    return (content_type or accept).partition(";")[0].strip().lower()
