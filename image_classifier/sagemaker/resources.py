"""The resources of these settings on AWS: list, stop and delete those of the current user.

Names do not decide whose a resource is: two users of an account can have the same settings. The
tags do, which `Aws.send` writes: the settings' name and the creator.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple
from uuid import uuid4

from container.classifier.errors import UserError
from image_classifier.sagemaker import s3
from image_classifier.sagemaker.aws import Aws, NoAccountError
from image_classifier.sagemaker.request_fields import CREATOR_TAG, TAG, is_of_pipeline, is_ours
from image_classifier.sagemaker.s3 import S3Uri
from image_classifier.settings.schema import Settings

# The status of a pipeline's execution, and here of its pipeline.
EXECUTING = "Executing"
_UNFINISHED = frozenset({EXECUTING, "Stopping"})

# Statuses of resources that cost something, or will.
_ALIVE = frozenset({"InProgress", "Creating", "InService", "Updating", "Pending", EXECUTING})

# Nouns of the API with their names in messages, in the order in which resources can be deleted.
KINDS = {
    "HyperParameterTuningJob": "tuning job",
    "TrainingJob": "training job",
    "TransformJob": "transform job",
    "ProcessingJob": "processing job",
    "Endpoint": "endpoint",
    "EndpointConfig": "endpoint configuration",
    "Model": "model",
    "Pipeline": "pipeline",
}
_EXECUTION = "PipelineExecution"


@dataclass(frozen=True, slots=True)
class Resource:
    """A job, an endpoint, its configuration, a model, a pipeline or an execution of it."""

    noun: str
    name: str
    """The name; of an execution its ARN."""

    status: str | None

    owner: str | None = None
    """The creator; None if it is unknown, or of other settings."""

    @property
    def is_job(self) -> bool:
        """Return whether it is stopped, not deleted."""
        return self.noun.endswith(("Job", _EXECUTION))

    @property
    def is_deletable(self) -> bool:
        """Return whether `delete` affects it: completed jobs stay as a record.

        SageMaker deletes no pipeline that is executing.
        """
        return self.status in _ALIVE if self.is_job else self.status != EXECUTING

    def __str__(self) -> str:
        """Return kind, name and status."""
        kind = KINDS.get(self.noun, "execution")
        return f"{kind} {self.name}" + (f" ({self.status})" if self.status else "")


class Found(NamedTuple):
    """Everything that has the name of the settings."""

    own: list[Resource]
    others: list[Resource]

    def notice(self) -> str | None:
        """Return a sentence about what belongs to others, or None."""
        counts = Counter(resource.owner for resource in self.others if resource.is_deletable)
        if not counts:
            return None
        parts = [
            f"{count} of {owner}" if owner else f"{count} without the tag {CREATOR_TAG}"
            for owner, count in counts.items()
        ]
        return f"not yours, and kept: resources of the same name: {', '.join(parts)}"


def find(aws: Aws, settings: Settings) -> Found:
    """Return all resources that have the settings' name, by owner.

    In a dry run without an account, placeholders name them.
    """
    try:
        creator = aws.creator()
        found = [item for noun in KINDS for item in _list(aws, settings, noun, {})]
        found = [item for each in found for item in _with_executions(aws, each)]
    except NoAccountError as error:
        if not aws.is_dry:
            raise
        aws.show_placeholder("the resources on SageMaker", str(error))
        plain = {"Endpoint", "Pipeline"}
        suffixes = {noun: "" if noun in plain else "-YYMMDD-HHMMSS" for noun in KINDS}
        names = {noun: f"{settings.name}{suffix}" for noun, suffix in suffixes.items()}
        return Found([Resource(noun, name, "InProgress") for noun, name in names.items()], [])
    own = [resource for resource in found if resource.owner == creator]
    return Found(own, [resource for resource in found if resource.owner != creator])


def find_named(aws: Aws, settings: Settings, noun: str) -> Resource | None:
    """Return the endpoint, or the pipeline, of these settings; None if it does not exist.

    Raises:
        UserError: one of this name belongs to another user.
    """
    named = _list(aws, settings, noun, {})
    found = next((item for item in named if item.name == settings.name), None)
    if found is not None:
        check_owner(aws, KINDS[noun], found.name, found.owner)
    return found


def check_owner(aws: Aws, kind: str, name: str, owner: str | None) -> None:
    """Check that something belongs to the current user.

    Raises:
        UserError: it belongs to another user.
    """
    if owner != aws.creator():
        reason = f"belongs to {owner}" if owner else f"has no tag {CREATOR_TAG}"
        raise UserError(
            f"the {kind} {name} {reason}, and you are {aws.creator()}: "
            "choose another name in the settings"
        )


def newest_job(aws: Aws, settings: Settings, *, is_completed: bool = True) -> str:
    """Return the current user's newest training job, by default of the completed ones.

    A job of a tuning job is returned only with `is_completed=False`.

    Raises:
        UserError: no such job exists.
    """
    request = {"SortBy": "CreationTime", "SortOrder": "Descending"}
    request |= {"StatusEquals": "Completed"} if is_completed else {}
    for job in _list(aws, settings, "TrainingJob", request, with_trials=not is_completed):
        if job.owner == aws.creator():
            return job.name
    which = "no completed training job" if is_completed else "no training job"
    raise UserError(f"{settings.name} has {which} of yours: train first, or name --job")


def _list(
    aws: Aws, settings: Settings, noun: str, request: dict[str, str], *, with_trials: bool = True
) -> Iterator[Resource]:
    key = f"{noun}Summaries" if noun.endswith(("Job", "Pipeline")) else f"{noun}s"
    filter_key = "PipelineNamePrefix" if noun == "Pipeline" else "NameContains"
    for page in aws.pages(f"List{noun}s", {filter_key: settings.name, **request}):
        for summary in page[key]:
            name = str(summary[f"{noun}Name"])
            if is_ours(settings, name, with_trials=with_trials):
                owner = find_owner(aws, settings, summary[f"{noun}Arn"])
                yield Resource(noun, name, summary.get(f"{noun}Status"), owner)


def _with_executions(aws: Aws, resource: Resource) -> Iterator[Resource]:
    """Yield a resource; before a pipeline its newest execution and all that run."""
    if resource.noun == "Pipeline":
        request = {"PipelineName": resource.name}
        listed = [
            (str(each["PipelineExecutionArn"]), str(each["PipelineExecutionStatus"]))
            for page in aws.pages("ListPipelineExecutions", request)
            for each in page["PipelineExecutionSummaries"]
        ]
        for number, (arn, status) in enumerate(listed):
            if number == 0 or status == EXECUTING:
                yield Resource(_EXECUTION, arn, status, resource.owner)
        if any(status in _UNFINISHED for _, status in listed):
            resource = replace(resource, status=EXECUTING)
    yield resource


def find_owner(aws: Aws, settings: Settings, arn: str) -> str | None:
    """Return the creator of something; None if it is unknown, or of other settings."""
    pages = aws.pages("ListTags", {"ResourceArn": arn})
    tags = {tag["Key"]: tag["Value"] for page in pages for tag in page["Tags"]}
    return tags.get(CREATOR_TAG) if tags.get(TAG) == settings.name else None


def outputs(aws: Aws, settings: Settings, found: Found) -> list[S3Uri]:
    """Return every object that the current user's jobs and endpoint wrote; no channel's images.

    A job's folder has its name. The other folders are those of the endpoint. Those of a pipeline's
    jobs hold the models of versions in the model registry. In a dry run that cannot list objects,
    a placeholder names them.
    """
    prefix = S3Uri.parse(f"{settings.output}/")
    own, others = ({resource.name for resource in listed} for listed in found)
    # Where only this user has resources, every folder is this user's.
    has_rest = not others or settings.name in own
    try:
        objects = [S3Uri(prefix.bucket, listed["Key"]) for listed in prefix.objects(aws)]
    except UserError as error:
        if not aws.is_dry:
            raise
        aws.show_placeholder(f"the objects in {prefix}", str(error))
        return [S3Uri(prefix.bucket, f"{prefix.key}PLACEHOLDER")]
    folders = {uri: uri.key.removeprefix(prefix.key).split("/", 1)[0] for uri in objects}
    return [
        uri
        for uri, folder in folders.items()
        if not is_of_pipeline(settings, folder)
        and (folder in own or (has_rest and folder not in others))
    ]


def delete(aws: Aws, settings: Settings, resources: list[Resource], objects: list[S3Uri]) -> None:
    """Stop running jobs, delete everything else.

    Raises:
        UserError: AWS rejected a request; earlier ones are done.
    """
    for resource in resources:
        verb, past = ("Stop", "stopping") if resource.is_job else ("Delete", "deleted")
        key = f"{resource.noun}{'Arn' if resource.noun == _EXECUTION else 'Name'}"
        token = {"ClientRequestToken": uuid4().hex} if resource.noun.startswith("Pipe") else {}
        aws.send(f"{verb}{resource.noun}", {key: resource.name, **token})
        if not aws.is_dry:
            aws.show(f"{past} {resource}")
    if objects and aws.is_dry:
        aws.show(f"DeleteObjects: {len(objects)} objects in {settings.output}/")
    elif objects:
        s3.delete(aws, objects)
        aws.show(f"deleted {len(objects)} objects in {settings.output}/")
