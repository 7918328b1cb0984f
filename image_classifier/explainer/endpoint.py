"""Endpoints that requests are sent to: a server by its URL, or an endpoint on SageMaker."""

import time
from http import HTTPStatus
from typing import Protocol
from urllib.parse import urlsplit

import boto3
import botocore.config
import botocore.exceptions
import urllib3
import urllib3.exceptions

from container.classifier.errors import UserError
from container.classifier.media_types import TARGET_MODEL
from image_classifier.explainer.analysis import Predictor

# A busy endpoint gets a request again for about a minute.
ATTEMPTS = 30
MAX_BACKOFF_SECONDS = 10
TIMEOUT_SECONDS = 120

BUSY = (
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)

# Requests in flight: two per core of a small machine.
PARALLEL = 4

MAX_SHOWN = 500


class RejectedError(UserError):
    """The endpoint rejects the request's content; a retry cannot help."""


class Endpoint(Protocol):
    """A model that is invoked over HTTP."""

    name: str
    """The URL, or the name on SageMaker."""

    def invoke(self, body: bytes, content_type: str, accept: str) -> tuple[bytes, str]:
        """Send a request; return the response's body and its media type, without parameters.

        Callable from several threads.

        Raises:
            RejectedError: the endpoint rejects the content of the request.
            UserError: the endpoint does not respond, or fails.
        """


class HttpEndpoint:
    """A server of SageMaker's contract at a URL."""

    def __init__(
        self, url: str, *, parallel: int = PARALLEL, target_model: str | None = None
    ) -> None:
        """Use `http://host:port`, or a URL with the path of the model.

        `target_model` is one of a multi-model endpoint's models.

        Raises:
            UserError: the URL is invalid.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            raise UserError(f"the URL must look like http://localhost:8080, got {url!r}")
        self.name = url if parts.path.strip("/") else f"{url.rstrip('/')}/invocations"
        self._headers = {} if target_model is None else {TARGET_MODEL: target_model}
        self._pool = urllib3.PoolManager(
            maxsize=parallel,
            block=True,
            timeout=TIMEOUT_SECONDS,
            retries=urllib3.Retry(
                total=ATTEMPTS,
                connect=2,
                read=2,
                redirect=0,
                # Retry-After in a response sets the delay.
                status_forcelist=[int(status) for status in BUSY],
                allowed_methods=None,
                backoff_factor=0.2,
                backoff_max=MAX_BACKOFF_SECONDS,
                retry_after_max=MAX_BACKOFF_SECONDS,
                raise_on_status=False,
            ),
        )

    def invoke(self, body: bytes, content_type: str, accept: str) -> tuple[bytes, str]:
        """Send a request; return the response's body and media type."""
        headers = {**self._headers, "Content-Type": content_type, "Accept": accept}
        try:
            response = self._pool.request("POST", self.name, body=body, headers=headers)
        except urllib3.exceptions.HTTPError as error:
            reason = error.reason if isinstance(error, urllib3.exceptions.MaxRetryError) else error
            raise UserError(
                f"no response from {self.name} ({reason}): is the server running?"
            ) from error
        if response.status != HTTPStatus.OK:
            text = response.data[:MAX_SHOWN].decode(errors="replace").strip()
            raise _error(f"{self.name} responded {response.status}: {text}", response.status)
        return response.data, _media_type(response.headers.get("Content-Type"), accept)


class SageMakerEndpoint:
    """An endpoint of an AWS account."""

    def __init__(
        self,
        predictor: Predictor,
        *,
        region: str | None,
        component: str | None = None,
        parallel: int = PARALLEL,
    ) -> None:
        """Create a client with boto3's credentials.

        `component` is the inference component of the endpoint that serves the model, if it has one.

        Raises:
            UserError: the configuration names no endpoint, or no region is set.
        """
        if predictor.endpoint_name is None:
            raise UserError(
                "no endpoint is set: give --url http://localhost:8080, --endpoint NAME, "
                "or a configuration with predictor.endpoint_name"
            )
        self.name = predictor.endpoint_name
        parameters = {
            "EndpointName": predictor.endpoint_name,
            "TargetModel": predictor.target_model,
            "InferenceComponentName": component,
            "CustomAttributes": predictor.custom_attributes,
        }
        self._parameters = {key: value for key, value in parameters.items() if value is not None}
        config = botocore.config.Config(
            max_pool_connections=parallel,
            read_timeout=TIMEOUT_SECONDS,
            retries={"mode": "adaptive", "max_attempts": 10},
        )
        try:
            self._client = boto3.client("sagemaker-runtime", region_name=region, config=config)
        except botocore.exceptions.NoRegionError as error:
            raise UserError(
                "no AWS region is set: give --region or set AWS_DEFAULT_REGION"
            ) from error

    def invoke(self, body: bytes, content_type: str, accept: str) -> tuple[bytes, str]:
        """Send a request; return the response's body and media type."""
        request = {**self._parameters, "Body": body, "ContentType": content_type, "Accept": accept}
        for attempt in range(ATTEMPTS):
            try:
                response = self._client.invoke_endpoint(**request)
                media_type = _media_type(response.get("ContentType"), accept)
                return response["Body"].read(), media_type
            except botocore.exceptions.ClientError as error:
                # The container's own status: boto3 retries only what the service rejects.
                status = error.response.get("OriginalStatusCode")
                if status not in BUSY or attempt == ATTEMPTS - 1:
                    details = error.response["Error"]
                    text = error.response.get("OriginalMessage") or details.get("Message", "")
                    message = f"the endpoint {self.name} responded {details['Code']}: "
                    raise _error(message + text[:MAX_SHOWN], status) from error
            except botocore.exceptions.BotoCoreError as error:
                raise UserError(f"no response from the endpoint {self.name}: {error}") from error
            time.sleep(min(0.2 * 2**attempt, MAX_BACKOFF_SECONDS))
        raise AssertionError


def _error(message: str, status: int | None) -> UserError:
    is_client_error = status is not None and status // 100 == HTTPStatus.BAD_REQUEST // 100
    return RejectedError(message) if is_client_error and status not in BUSY else UserError(message)


def _media_type(content_type: str | None, accept: str) -> str:
    return (content_type or accept).partition(";")[0].strip().lower()
