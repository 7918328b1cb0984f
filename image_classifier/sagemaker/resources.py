"""The resources of these settings on AWS: list, stop and delete them."""

from collections.abc import Iterator
from dataclasses import dataclass

from container.classifier.errors import UserError
from image_classifier.sagemaker import s3
from image_classifier.sagemaker.aws import Aws, NoAccountError
from image_classifier.sagemaker.request_fields import is_ours
from image_classifier.sagemaker.s3 import S3Uri
from image_classifier.settings.schema import Settings

# Statuses of resources that cost something, or will.
_ALIVE = frozenset({"InProgress", "Creating", "InService", "Updating", "Pending"})

# Nouns of the API with their names in messages, in the order in which resources can be deleted.
KINDS = {
    "HyperParameterTuningJob": "tuning job",
    "TrainingJob": "training job",
    "TransformJob": "transform job",
    "ProcessingJob": "processing job",
    "Endpoint": "endpoint",
    "EndpointConfig": "endpoint configuration",
    "Model": "model",
}


@dataclass(frozen=True, slots=True)
class Resource:
    """A job, an endpoint, its configuration or a model."""

    noun: str
    name: str
    status: str | None

    @property
    def is_job(self) -> bool:
        """Return whether it is stopped, not deleted."""
        return self.noun.endswith("Job")

    @property
    def is_deletable(self) -> bool:
        """Return whether `delete` affects it: completed jobs stay as a record."""
        return not self.is_job or self.status in _ALIVE

    def __str__(self) -> str:
        """Return kind, name and status."""
        return f"{KINDS[self.noun]} {self.name}" + (f" ({self.status})" if self.status else "")


def find(aws: Aws, settings: Settings) -> Iterator[Resource]:
    """Yield all resources that have the settings' name.

    In a dry run without an account, placeholders name them.
    """
    try:
        yield from _list(aws, settings)
    except NoAccountError as error:
        if not aws.is_dry:
            raise
        aws.show_placeholder("the resources on SageMaker", str(error))
        for noun in KINDS:
            suffix = "" if noun == "Endpoint" else "-YYMMDD-HHMMSS"
            yield Resource(noun, f"{settings.name}{suffix}", "InProgress")


def _list(aws: Aws, settings: Settings) -> Iterator[Resource]:
    for noun in KINDS:
        key = f"{noun}Summaries" if noun.endswith("Job") else f"{noun}s"
        for page in aws.pages(f"List{noun}s", {"NameContains": settings.name}):
            for summary in page[key]:
                name = str(summary[f"{noun}Name"])
                if is_ours(settings, name):
                    yield Resource(noun, name, summary.get(f"{noun}Status"))


def outputs(aws: Aws, settings: Settings) -> list[S3Uri]:
    """Return every object that jobs and endpoints wrote; the images of the channels are not.

    In a dry run that cannot list them, a placeholder names them.
    """
    prefix = S3Uri.parse(f"{settings.output}/")
    try:
        return [S3Uri(prefix.bucket, found["Key"]) for found in prefix.objects(aws)]
    except UserError as error:
        if not aws.is_dry:
            raise
        aws.show_placeholder(f"the objects in {prefix}", str(error))
        return [S3Uri(prefix.bucket, f"{prefix.key}PLACEHOLDER")]


def delete(aws: Aws, settings: Settings, resources: list[Resource], objects: list[S3Uri]) -> None:
    """Stop running jobs, delete everything else.

    Raises:
        UserError: AWS rejected a request; earlier ones are done.
    """
    for resource in resources:
        verb, past = ("Stop", "stopping") if resource.is_job else ("Delete", "deleted")
        aws.send(f"{verb}{resource.noun}", {f"{resource.noun}Name": resource.name})
        if not aws.is_dry:
            aws.show(f"{past} {resource}")
    if objects and aws.is_dry:
        aws.show(f"DeleteObjects: {len(objects)} objects in {settings.output}/")
    elif objects:
        s3.delete(aws, objects)
        aws.show(f"deleted {len(objects)} objects in {settings.output}/")
