"""`deploy`, `predict`, `transform` and Clarify's `explain` on SageMaker."""

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from container.classifier.errors import UserError
from image_classifier.sagemaker import (
    clarify_requests,
    endpoint_requests,
    models,
    names,
    prediction,
    sdk,
)
from image_classifier.sagemaker.aws import Answer, Aws
from image_classifier.sagemaker.s3 import Place
from image_classifier.settings.schema import Settings
from image_classifier.settings.settings_file import SettingsFile

CHANGING = frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack"})
RUNNING = frozenset({"InProgress", "Stopping"})

# Of one asynchronous answer: what the service allows for one.
ASYNCHRONOUS_SECONDS = 900


def deploy(aws: Aws, file: SettingsFile, *, job: str | None = None, wait: bool = True) -> str:
    """Make the endpoint, or give one that exists the new model; return its name.

    `job` is a training job's name or a model.tar.gz on S3; without it the newest job's model.

    Raises:
        UserError: AWS refuses something, or the endpoint did not get ready.
    """
    file.require("deploy")
    settings = file.settings
    name = names.new(settings)
    if settings.endpoint.kind == "multi-model":
        artifact = models.gather(aws, settings, job)
    else:
        artifact = models.artifact(aws, settings, job)
    aws.send("CreateModel", endpoint_requests.model(settings, name, artifact))
    aws.send("CreateEndpointConfig", endpoint_requests.endpoint_config(settings, name))
    if not aws.is_dry and _exists(aws, settings.name):
        pair = {"EndpointName": settings.name, "EndpointConfigName": name}
        aws.send("UpdateEndpoint", pair)
    else:
        aws.send("CreateEndpoint", endpoint_requests.endpoint(settings, name))
    if aws.is_dry:
        return settings.name
    aws.show(f"endpoint {settings.name}: `python -m image_classifier delete` ends it, and its cost")
    if wait:
        answer = aws.wait(
            lambda: aws.ask("DescribeEndpoint", {"EndpointName": settings.name}),
            "EndpointStatus",
            CHANGING,
        )
        if answer["EndpointStatus"] == "Failed":
            reason = answer.get("FailureReason", "no reason given")
            log = f"its log is in CloudWatch, /aws/sagemaker/Endpoints/{settings.name}"
            message = f"the endpoint {settings.name} did not get ready: {reason}; {log}"
            raise UserError(message)
    return settings.name


def predict(
    aws: Aws, file: SettingsFile, images: Sequence[Path], *, model: str | None = None
) -> Iterator[tuple[Path, Answer]]:
    """Yield every image with its answer; `model` names one of a multi-model endpoint.

    Raises:
        UserError: an image cannot be read, or the endpoint refuses it.
    """
    file.require("predict")
    settings = file.settings
    for image in images:
        body, media_type = prediction.read_image(image)
        if settings.endpoint.kind == "asynchronous":
            answer = _ask_asynchronously(aws, settings, body, media_type)
        else:
            answer = _ask(aws, settings, body, media_type, model)
        if not aws.is_dry:
            yield image, answer


def transform(
    aws: Aws,
    file: SettingsFile,
    images: str,
    *,
    job: str | None = None,
    wait: bool = True,
) -> str:
    """Answer all images below a place on S3; return where the answers lie.

    Raises:
        UserError: AWS refuses something, or an image could not be answered.
    """
    file.require("transform")
    settings = file.settings
    name = names.new(settings)
    source = Place.parse(images)
    artifact = models.artifact(aws, settings, job)
    # One that is no multi-model one: batch transform knows a single model.
    aws.send("CreateModel", endpoint_requests.model(models.single(settings), name, artifact))
    request = endpoint_requests.transform_job(settings, name, name, str(source))
    aws.send("CreateTransformJob", request)
    where = f"{settings.output}/{name}"
    if wait and not aws.is_dry:
        answer = aws.wait(
            lambda: aws.ask("DescribeTransformJob", {"TransformJobName": name}),
            "TransformJobStatus",
            RUNNING,
        )
        if answer["TransformJobStatus"] == "Failed":
            reason = answer.get("FailureReason", "no reason given")
            message = f"{name} failed: {reason}; answers that there are lie in {where}"
            raise UserError(message)
    return where


def clarify(
    aws: Aws,
    file: SettingsFile,
    images: str,
    class_names: Sequence[str],
    *,
    job: str | None = None,
    wait: bool = True,
) -> str:
    """Let SageMaker Clarify explain the images below a place on S3; return where it wrote.

    Raises:
        UserError: AWS refuses something (new accounts have no Clarify), or the job failed.
    """
    file.require("explain --clarify")
    settings = models.single(file.settings)
    name = names.new(settings)
    source = Place.parse(images)
    artifact = models.artifact(aws, settings, job)
    aws.send("CreateModel", endpoint_requests.model(settings, name, artifact))
    config = Place.parse(f"{settings.output}/{name}/config/analysis_config.json")
    document = clarify_requests.clarify_config(settings, name, class_names)
    config.write(aws, json.dumps(document, indent=2).encode())
    request = clarify_requests.clarify_job(
        settings, name, image=sdk.image("clarify", aws), config=str(config), images=str(source)
    )
    aws.send("CreateProcessingJob", request)
    if wait and not aws.is_dry:
        answer = aws.wait(
            lambda: aws.ask("DescribeProcessingJob", {"ProcessingJobName": name}),
            "ProcessingJobStatus",
            RUNNING,
        )
        if answer["ProcessingJobStatus"] == "Failed":
            message = f"{name} failed: {answer.get('FailureReason', 'no reason given')}"
            raise UserError(message)
    return f"{settings.output}/{name}"


def _exists(aws: Aws, name: str) -> bool:
    found = aws.pages("ListEndpoints", {"NameContains": name})
    return any(each["EndpointName"] == name for page in found for each in page["Endpoints"])


def _ask(aws: Aws, settings: Settings, body: bytes, media_type: str, model: str | None) -> Answer:
    request = {
        "EndpointName": settings.name,
        "ContentType": media_type,
        "Accept": "application/json",
        "Body": body,
    }
    if settings.endpoint.kind == "multi-model":
        if model is None:
            message = "which model? --model NAME.tar.gz, one of those that deploy has listed"
            raise UserError(message)
        request["TargetModel"] = model
    if aws.is_dry:
        aws.show(json.dumps({"InvokeEndpoint": request | {"Body": f"{len(body)} bytes"}}, indent=2))
        return {}
    answer = aws.ask("InvokeEndpoint", request, "sagemaker-runtime")
    return prediction.decode_response(answer["Body"].read())


def _ask_asynchronously(aws: Aws, settings: Settings, body: bytes, media_type: str) -> Answer:
    source = Place.parse(f"{settings.output}/asynchronous/requests/{uuid.uuid4()}")
    source.write(aws, body)
    request = {
        "EndpointName": settings.name,
        "ContentType": media_type,
        "Accept": "application/json",
        "InputLocation": str(source),
    }
    if aws.is_dry:
        aws.show(json.dumps({"InvokeEndpointAsync": request}, indent=2))
        return {}
    answer = aws.ask("InvokeEndpointAsync", request, "sagemaker-runtime")
    wanted, failed = answer["OutputLocation"], answer.get("FailureLocation")
    for _ in range(ASYNCHRONOUS_SECONDS):
        for place in filter(None, (wanted, failed)):
            found = Place.parse(place).read(aws)
            if found is None:
                continue
            if place == failed:
                message = f"the endpoint refused the image: {found.decode(errors='replace')}"
                raise UserError(message)
            return prediction.decode_response(found)
        time.sleep(1)
    message = f"no answer at {wanted} after {ASYNCHRONOUS_SECONDS} s: look at its log in CloudWatch"
    raise UserError(message)
