"""Verify a deployment: the endpoint serves the new configuration, and reproduces golden images."""

import json
import math
import time
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from container.classifier.artifact import GOLDEN_ANSWERS, INT8_ANSWERS
from container.classifier.errors import UserError
from container.classifier.media_types import IMAGE_MEDIA_TYPES
from image_classifier.sagemaker import artifact as artifacts
from image_classifier.sagemaker import aws as calls
from image_classifier.sagemaker import invocation, logs
from image_classifier.sagemaker.aws import Aws
from image_classifier.sagemaker.invocation import RejectedImageError
from image_classifier.sagemaker.s3 import S3Uri
from image_classifier.settings.schema import Settings

# Nouns of the API with their names in messages.
KINDS = {"Endpoint": "endpoint", "InferenceComponent": "inference component"}

_CHANGING = frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack"})

# Largest difference from a probability that training computed. The server has stricter limits for
# each precision, and verifies them before it serves.
_TOLERANCE = 0.1


class Golden(NamedTuple):
    """An image of the artifact."""

    name: str
    data: bytes
    probabilities: Sequence[Sequence[float]]
    """Those of each network in the artifact."""


def wait(aws: Aws, settings: Settings, served: str, noun: str = "Endpoint") -> None:
    """Wait until the endpoint serves its configuration; print every change of its status.

    Args:
        aws: the account.
        settings: those of the endpoint.
        served: name of the endpoint configuration, or of the model of an inference component.
        noun: one of KINDS.

    Raises:
        UserError: it failed, was rolled back, or needs longer than `endpoint.deploy_minutes`. The
            message has AWS's reason and the last lines of the container's log.
    """
    log, shown = logs.of_endpoint(aws, settings, start=time.time()), ""
    polls = math.ceil(settings.endpoint.deploy_minutes * 60 / max(calls.POLL_SECONDS, 1))
    for _ in range(polls):
        response = aws.query(f"Describe{noun}", {f"{noun}Name": settings.name})
        if response[f"{noun}Status"] != shown:
            shown = response[f"{noun}Status"]
            aws.show(f"{time.strftime('%H:%M:%S')} {shown}")
        log.show_new()
        if shown not in _CHANGING:
            break
        time.sleep(calls.POLL_SECONDS)
    serves = response.get("EndpointConfigName") or response["Specification"]["ModelName"]
    if problem := _problem(settings, shown, serves, served):
        reason = response.get("FailureReason", "AWS gives no reason")
        raise UserError(f"the {KINDS[noun]} {settings.name} {problem}: {reason}{log.tail()}")


def _problem(settings: Settings, status: str, serves: str, expected: str) -> str | None:
    if status == "UpdateRollbackFailed":
        return "has neither the new model nor a working old one, delete it (UpdateRollbackFailed)"
    if status in _CHANGING:
        minutes = f"{settings.endpoint.deploy_minutes:g} minutes"
        return f"is still {status} after {minutes} (endpoint.deploy_minutes); `status` shows it"
    if status != "InService":
        return f"is {status}"
    if serves != expected:
        return f"was rolled back to {serves}, it does not serve {expected}"
    return None


def smoke_test(aws: Aws, settings: Settings, artifact: str, *, model: str | None = None) -> None:
    """Send the golden images of the artifact to the endpoint, and compare the probabilities.

    `artifact` is a model.tar.gz on S3, or the ARN of a version in the model registry; `model` is
    its name on a multi-model endpoint. If it cannot be read, or has no golden images, that is
    reported, and nothing is tested.

    Raises:
        UserError: the endpoint rejected an image, or its probabilities differ.
    """
    if artifact.startswith("arn:"):
        package = aws.query("DescribeModelPackage", {"ModelPackageName": artifact})
        artifact = package["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]
    try:
        images = golden_images(aws, S3Uri.parse(artifact))
    except UserError as error:
        aws.show(f"{model or 'the endpoint'} was not tested: {error}")
        return
    for image in images:
        media_type = IMAGE_MEDIA_TYPES[PurePosixPath(image.name).suffix.lower()]
        try:
            response = invocation.invoke(aws, settings, image.data, media_type, model=model)
        except RejectedImageError as error:
            name = f"{image.name} of {artifact}"
            raise UserError(f"the endpoint {settings.name} rejected {name}: {error}") from None
        found = response["predictions"][0].get("probabilities", ())
        differences = [_difference(found, expected) for expected in image.probabilities]
        if min(differences) > _TOLERANCE:
            raise UserError(
                f"the endpoint {settings.name} does not reproduce {image.name} of {artifact}: its "
                f"probabilities differ by {min(differences):.2g}: is the container image the one "
                "of this model?"
            )
    aws.show(f"the endpoint reproduces {len(images)} golden images of {model or 'the model'}")


def _difference(found: Sequence[float], expected: Sequence[float]) -> float:
    if len(found) != len(expected):
        return math.inf
    return max(abs(one - other) for one, other in zip(found, expected, strict=True))


def golden_images(aws: Aws, artifact: S3Uri) -> list[Golden]:
    """Return the golden images of a model.tar.gz on S3, with the probabilities of its networks.

    Raises:
        UserError: it cannot be read, or has none.
    """
    files = artifacts.read(aws, artifact)
    try:
        listed = json.loads(files[GOLDEN_ANSWERS])
        rows = json.loads(files[INT8_ANSWERS]) if INT8_ANSWERS in files else [()] * len(listed)
        return [
            Golden(each["file"], files[each["file"]], [each["probabilities"], *filter(None, [row])])
            for each, row in zip(listed, rows, strict=True)
            if PurePosixPath(each["file"]).suffix.lower() in IMAGE_MEDIA_TYPES
        ]
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{artifact} has no golden images") from None
