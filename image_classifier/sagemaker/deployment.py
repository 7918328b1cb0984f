"""`deploy` on SageMaker, and the choice of the model for every verb that needs one."""

import hashlib
import re
from datetime import timedelta

from container.classifier.errors import UserError
from image_classifier.sagemaker import (
    attachments,
    components,
    endpoint_requests,
    expiry,
    resources,
    rollout,
)
from image_classifier.sagemaker import scaling as scaling_of
from image_classifier.sagemaker.aws import Aws
from image_classifier.sagemaker.request_fields import new_name, tags
from image_classifier.sagemaker.s3 import S3Uri
from image_classifier.settings.schema import Settings
from image_classifier.settings.settings_file import SettingsFile


def deploy(
    aws: Aws,
    file: SettingsFile,
    *,
    job: str | None = None,
    package: str | None = None,
    expires: timedelta | None = None,
    wait: bool = True,
) -> str:
    """Create the endpoint, or update it with the new model; return its name.

    `job` is a training job's name or a model.tar.gz on S3; by default the newest job's model.
    `package` is the ARN of a version in the model registry, instead of a job's model. `expires` is
    the time until the endpoint is deleted, `expiry.NEVER`, or None to change nothing.

    Raises:
        UserError: AWS rejected a request, the endpoint failed, or it is another user's.
    """
    file.require("deploy --expires" if expires else "deploy")
    settings, scaling = file.settings, file.settings.endpoint.scaling
    if scaling is not None and not wait:
        raise UserError(
            "endpoint.scaling needs an endpoint that is InService: deploy without --no-wait"
        )
    exists = not aws.is_dry and _is_updatable(aws, settings)
    name = new_name(settings)
    tested: dict[str, str] | dict[None, str]
    if settings.endpoint.kind == "multi-model":
        model = f"{settings.output}/models/"
        tested = collect_models(aws, settings, model, job)
    else:
        model = package or find_model(aws, settings, job)
        tested = {None: model}
    aws.send("CreateModel", endpoint_requests.model(settings, name, model))
    if not (exists and settings.endpoint.has_component):
        aws.send("CreateEndpointConfig", endpoint_requests.endpoint_config(settings, name))
    # Before the endpoint: if the schedule is rejected, nothing costs money.
    expiry.settle(aws, settings, expires, is_new=not exists)
    if not aws.is_dry:
        # An update that changes the instance type of a scaled endpoint would fail. A new endpoint
        # does not take the limits of an earlier one.
        attachments.delete(aws, settings, attachments.of_scaling(aws, settings))
    _serve(aws, settings, name, exists=exists, wait=wait)
    if scaling is not None:
        scaling_of.register(aws, settings, scaling)
    if wait and not aws.is_dry:
        for target, artifact in tested.items():
            rollout.smoke_test(aws, settings, artifact, model=target)
    return settings.name


def _serve(aws: Aws, settings: Settings, name: str, *, exists: bool, wait: bool) -> None:
    """Create or update the endpoint, or only its inference component, to serve the model `name`."""
    has_component = settings.endpoint.has_component
    if not (exists and has_component):
        request = {"EndpointName": settings.name, "EndpointConfigName": name}
        if exists:
            aws.send("UpdateEndpoint", request | endpoint_requests.update(settings))
        else:
            aws.send("CreateEndpoint", {**request, "Tags": tags(settings)})
        if not aws.is_dry:
            aws.show(f"endpoint {settings.name}: costs money until `image-classifier delete`")
        if wait and not aws.is_dry:
            rollout.wait(aws, settings, name)
    if has_component:
        components.deploy(aws, settings, name, is_new_endpoint=not exists)


def _is_updatable(aws: Aws, settings: Settings) -> bool:
    """Return whether the endpoint exists.

    Raises:
        UserError: AWS would reject an update, or it is another user's.
    """
    found = resources.find_named(aws, settings, "Endpoint")
    if found is not None and found.status in {"Creating", "Updating", "SystemUpdating"}:
        raise UserError(f"the endpoint {found.name} is {found.status}: wait until it is InService")
    if found is not None and found.status != "InService":
        raise UserError(f"the endpoint {found.name} is {found.status}: `delete` it, then deploy")
    components.check(aws, settings, exists=found is not None)
    return found is not None


def create_single_model(
    aws: Aws, settings: Settings, job: str | None, *, is_for_transform: bool = False
) -> str:
    """Create a model for a transform job or Clarify, of any kind of endpoint; return its name."""
    name = new_name(settings)
    model = find_model(aws, settings, job)
    request = endpoint_requests.model(
        settings, name, model, is_single=True, is_for_transform=is_for_transform
    )
    aws.send("CreateModel", request)
    return name


def find_model(aws: Aws, settings: Settings, job: str | None) -> str:
    """Return the model.tar.gz of a training job, by default of the newest completed one.

    In a dry run without a job, a placeholder names it.

    Raises:
        UserError: the job does not exist, or has no model.
    """
    if job is not None and job.startswith("s3://"):
        return job
    if aws.is_dry:
        name = job or f"{settings.name}-TRAINING-JOB"
        return f"{settings.output}/{name}/output/model.tar.gz"
    name = job or resources.newest_job(aws, settings)
    response = aws.query("DescribeTrainingJob", {"TrainingJobName": name})
    found = (response.get("ModelArtifacts") or {}).get("S3ModelArtifacts")
    if not found:
        raise UserError(
            f"the training job {name} has no model: it is {response['TrainingJobStatus']}"
        )
    return str(found)


def collect_models(aws: Aws, settings: Settings, prefix: str, job: str | None) -> dict[str, str]:
    """Copy models to a prefix for a multi-model endpoint; return the copies by their names.

    SageMaker caches models by name, so none is overwritten.
    """
    copies = {}
    for model_job in settings.endpoint.models or (job,):
        source = find_model(aws, settings, model_job)
        if model_job is not None and model_job.startswith("s3://"):
            name = _name_of(aws, S3Uri.parse(source))
        else:
            # s3://bucket/prefix/JOB/output/model.tar.gz
            name = source.rsplit("/", 3)[1]
        name = f"{name}.tar.gz"
        copies[name] = f"{prefix}{name}"
        S3Uri.parse(source).copy(aws, S3Uri.parse(copies[name]))
        aws.show(f"model {name}")
    return copies


def _name_of(aws: Aws, artifact: S3Uri) -> str:
    """Return the name of the artifact's folder and a hash of its address and content."""
    folders = [name for name in artifact.key.split("/")[:-1] if name not in {"output", ""}]
    label = re.sub(r"[^A-Za-z0-9.-]+", "-", [artifact.bucket, *folders][-1])
    content = f"{artifact} {artifact.etag(aws)}"
    return f"{label}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
