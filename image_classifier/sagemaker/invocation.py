"""InvokeEndpoint: one image, and the server's response."""

import json
import sys
import time
import uuid
from http import HTTPStatus
from typing import Any

from container.classifier.errors import UserError
from container.classifier.media_types import JSON
from image_classifier.platform.multi_model_endpoint import check_name
from image_classifier.sagemaker.aws import Aws, ModelError, Response
from image_classifier.sagemaker.s3 import S3Uri
from image_classifier.settings.schema import Settings

# Limit of the service for one asynchronous response.
ASYNCHRONOUS_SECONDS = 900

# Until a multi-model endpoint has loaded a model, or a serverless endpoint has started; and until
# an endpoint that has scaled to zero has started an instance, because its alarm counts requests.
LOADING_SECONDS, START_SECONDS, _LOADING_POLL_SECONDS = 300, 1200, 5

# The second is a part of the message for an inference component without copies.
_NOT_READY = frozenset({"ModelNotReadyException", "has no capacity"})

# Statuses of errors about an image: another one can succeed.
_IMAGE_ERRORS = frozenset({
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
})  # fmt: skip


class RejectedImageError(UserError):
    """An image is rejected; others can be accepted."""

    def __init__(self, message: str, code: str = "not_sent") -> None:
        """Set the reason, and the code in the server's form."""
        super().__init__(message)
        self.document: Response = {"error": {"code": code, "message": message}}


def accept(top: int | None) -> str:
    """Return the media type of a response in JSON with the `top` classes or all of them."""
    return f"{JSON};top={top}" if top else JSON


def invoke(
    aws: Aws,
    settings: Settings,
    body: bytes,
    media_type: str,
    *,
    model: str | None = None,
    top: int | None = None,
) -> Response:
    """Send an image to the endpoint; return the response, an empty one in a dry run.

    Args:
        aws: the account.
        settings: those of the endpoint.
        body: an image file.
        media_type: the file's.
        model: one of a multi-model endpoint's models.
        top: number of the most probable classes in the response; None: all classes.

    Raises:
        RejectedImageError: the endpoint rejected the image.
        UserError: the endpoint does not respond, or rejects every request.
    """
    request = {
        "EndpointName": settings.name,
        "ContentType": media_type,
        "Accept": accept(top),
    }
    if settings.endpoint.kind == "asynchronous":
        return _invoke_asynchronously(aws, settings, request, body)
    return _invoke(aws, settings, request | {"Body": body}, model)


def target_model(settings: Settings, model: str | None) -> str | None:
    """Return the model of a request; None: the endpoint has one model.

    Raises:
        UserError: a multi-model endpoint needs its name, in ASCII.
    """
    if settings.endpoint.kind != "multi-model":
        return None
    if model is None:
        raise UserError("no model: add --model NAME.tar.gz, one of those that deploy has listed")
    check_name(model)
    return model


def decode_response(body: bytes, status: int = HTTPStatus.OK) -> Response:
    """Parse the server's response.

    Raises:
        RejectedImageError: it is an error about the image.
        UserError: it is another error, or not a response of this project's server.
    """
    problem = UserError(f"not a response of the server: {body[:300].decode(errors='replace')}")
    try:
        response: Response = json.loads(body)
        # SAGEMAKER_CLASSIFIER_ERROR_RECORDS changes the status of an image's error to 200.
        first = response["predictions"][0] if status == HTTPStatus.OK else response
        if "error" in first:
            code, message = (str(first["error"][key]) for key in ("code", "message"))
            is_about_image = status == HTTPStatus.OK or status in _IMAGE_ERRORS
            problem = RejectedImageError(message, code) if is_about_image else UserError(message)
        elif first["class_name"] and (response.get("class_names") or first["ranking"]):
            return response
    except (ValueError, LookupError, TypeError):
        pass
    raise problem


def _invoke(aws: Aws, settings: Settings, request: dict[str, Any], model: str | None) -> Response:
    if (model := target_model(settings, model)) is not None:
        request["TargetModel"] = model
    has_component = settings.endpoint.has_component
    if has_component:
        request["InferenceComponentName"] = settings.name
    if aws.is_dry:
        size = f"{len(request['Body'])} bytes"
        aws.show_request("InvokeEndpoint", request | {"Body": size})
        return {}
    seconds = START_SECONDS if has_component else LOADING_SECONDS
    for attempt in range(seconds // _LOADING_POLL_SECONDS):
        try:
            response = aws.query_unless(_NOT_READY, "InvokeEndpoint", request, "sagemaker-runtime")
        except ModelError as error:
            if error.status not in _IMAGE_ERRORS:
                raise
            return decode_response(error.body.encode(), error.status)
        if response is not None:
            return decode_response(response["Body"].read())
        if has_component and attempt == 0:
            notice = f"the endpoint {settings.name} starts an instance, which takes minutes"
            # Not among the predictions.
            print(notice, file=sys.stderr, flush=True)
        time.sleep(_LOADING_POLL_SECONDS)
    raise UserError(
        f"the endpoint {settings.name} has not loaded the model after {seconds} s: see the log in "
        "CloudWatch"
    )


def _invoke_asynchronously(
    aws: Aws, settings: Settings, request: dict[str, Any], body: bytes
) -> Response:
    source = S3Uri.parse(f"{settings.output}/asynchronous/requests/{uuid.uuid4()}")
    source.write(aws, body)
    request["InputLocation"] = str(source)
    if aws.is_dry:
        aws.show_request("InvokeEndpointAsync", request)
        return {}
    response = aws.query("InvokeEndpointAsync", request, "sagemaker-runtime")
    output, failure = response["OutputLocation"], response.get("FailureLocation")
    for _ in range(ASYNCHRONOUS_SECONDS):
        if (content := S3Uri.parse(output).read(aws)) is not None:
            return decode_response(content)
        if failure and (content := S3Uri.parse(failure).read(aws)) is not None:
            reason = content.decode(errors="replace")
            raise RejectedImageError(f"the endpoint rejected the image: {reason}", "rejected")
        time.sleep(1)
    raise UserError(
        f"no response at {output} after {ASYNCHRONOUS_SECONDS} s: see the log in CloudWatch"
    )
