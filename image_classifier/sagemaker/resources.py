"""What these settings have made on AWS: listed, stopped and removed."""

from collections.abc import Iterator
from dataclasses import dataclass

from image_classifier.sagemaker import names, s3
from image_classifier.sagemaker.aws import Aws
from image_classifier.sagemaker.s3 import Place
from image_classifier.settings.schema import Settings

# What still costs something, or will.
_ALIVE = frozenset({"InProgress", "Creating", "InService", "Updating", "Pending"})


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of thing, and the operations on it."""

    word: str
    list_operation: str
    list_key: str
    name_key: str
    status_key: str | None
    remove_operation: str
    is_job: bool


# In the order in which they can go.
KINDS = (
    Kind(
        "tuning job",
        "ListHyperParameterTuningJobs",
        "HyperParameterTuningJobSummaries",
        "HyperParameterTuningJobName",
        "HyperParameterTuningJobStatus",
        "StopHyperParameterTuningJob",
        is_job=True,
    ),
    Kind(
        "training job",
        "ListTrainingJobs",
        "TrainingJobSummaries",
        "TrainingJobName",
        "TrainingJobStatus",
        "StopTrainingJob",
        is_job=True,
    ),
    Kind(
        "transform job",
        "ListTransformJobs",
        "TransformJobSummaries",
        "TransformJobName",
        "TransformJobStatus",
        "StopTransformJob",
        is_job=True,
    ),
    Kind(
        "processing job",
        "ListProcessingJobs",
        "ProcessingJobSummaries",
        "ProcessingJobName",
        "ProcessingJobStatus",
        "StopProcessingJob",
        is_job=True,
    ),
    Kind(
        "endpoint",
        "ListEndpoints",
        "Endpoints",
        "EndpointName",
        "EndpointStatus",
        "DeleteEndpoint",
        is_job=False,
    ),
    Kind(
        "endpoint configuration",
        "ListEndpointConfigs",
        "EndpointConfigs",
        "EndpointConfigName",
        None,
        "DeleteEndpointConfig",
        is_job=False,
    ),
    Kind("model", "ListModels", "Models", "ModelName", None, "DeleteModel", is_job=False),
)


@dataclass(frozen=True, slots=True)
class Belonging:
    """One thing that was made."""

    kind: Kind
    name: str
    status: str | None

    @property
    def is_to_go(self) -> bool:
        """Tell whether `delete` has anything to do: jobs that have ended stay as a record."""
        return not self.kind.is_job or self.status in _ALIVE

    def __str__(self) -> str:
        """Return it in words."""
        return f"{self.kind.word} {self.name}" + (f" ({self.status})" if self.status else "")


def find(aws: Aws, settings: Settings) -> Iterator[Belonging]:
    """Yield all that has the settings' name."""
    for kind in KINDS:
        for page in aws.pages(kind.list_operation, {"NameContains": settings.name}):
            for each in page[kind.list_key]:
                name = str(each[kind.name_key])
                if names.is_ours(settings, name):
                    yield Belonging(kind, name, each.get(kind.status_key))


def outputs(aws: Aws, settings: Settings) -> list[Place]:
    """Return every object that jobs and endpoints wrote; the images are none of them."""
    return list(Place.parse(f"{settings.output}/").below(aws))


def remove(aws: Aws, resources: list[Belonging], objects: list[Place]) -> None:
    """Stop jobs that run, remove the rest.

    Raises:
        UserError: AWS refuses something; what went before it is gone.
    """
    for each in resources:
        aws.send(each.kind.remove_operation, {each.kind.name_key: each.name})
        if not aws.is_dry:
            aws.show(f"{'stopping' if each.kind.is_job else 'removed'} {each}")
    if objects and aws.is_dry:
        aws.show(f"DeleteObjects: {len(objects)} objects below {_parent(objects)}")
    elif objects:
        s3.remove(aws, objects)
        aws.show(f"removed {len(objects)} objects below {_parent(objects)}")


def _parent(objects: list[Place]) -> str:
    first = objects[0]
    return f"s3://{first.bucket}/{'/'.join(first.key.split('/')[:2])}/"
