"""`logs`: the log of a training job or of the endpoint, from CloudWatch."""

from collections.abc import Iterator

from botocore.exceptions import ClientError

from container.classifier.errors import UserError
from image_classifier.sagemaker.aws import Aws, explained
from image_classifier.sagemaker.request_fields import is_ours
from image_classifier.settings.schema import Settings

TRAINING_JOBS, ENDPOINTS = "/aws/sagemaker/TrainingJobs", "/aws/sagemaker/Endpoints"

FIRST_HOST = "algo-1"


def of_training(aws: Aws, settings: Settings, job: str | None = None) -> Iterator[str]:
    """Yield the lines of a training job's log, by default of the newest job, whatever its status.

    The lines of other hosts than the first begin with the host's name.

    Raises:
        UserError: no job exists, it has no log yet, or AWS rejected a request.
    """
    name = job or _newest_job(aws, settings)
    yield from _lines(aws, TRAINING_JOBS, f"{name}/", name)


def of_endpoint(aws: Aws, settings: Settings) -> Iterator[str]:
    """Yield the lines of the endpoint's log.

    Raises:
        UserError: it has no log, or AWS rejected a request.
    """
    yield from _lines(aws, f"{ENDPOINTS}/{settings.name}", "", f"endpoint {settings.name}")


def _newest_job(aws: Aws, settings: Settings) -> str:
    request = {
        "NameContains": f"{settings.name}-",
        "SortBy": "CreationTime",
        "SortOrder": "Descending",
    }
    for page in aws.pages("ListTrainingJobs", request):
        for summary in page["TrainingJobSummaries"]:
            name = str(summary["TrainingJobName"])
            if is_ours(settings, name):
                return name
    raise UserError(f"{settings.name} has no training job: train first, or name --job")


def _lines(aws: Aws, group: str, prefix: str, owner: str) -> Iterator[str]:
    request = {"logGroupName": group} | ({"logStreamNamePrefix": prefix} if prefix else {})
    is_empty = True
    with explained("FilterLogEvents"):
        try:
            for page in aws.pages("FilterLogEvents", request, "logs"):
                for event in page["events"]:
                    is_empty = False
                    yield _host(event["logStreamName"], prefix) + event["message"].rstrip("\n")
        except ClientError as error:
            # The service creates the group with its first log.
            if error.response["Error"]["Code"] != "ResourceNotFoundException":
                raise
    if is_empty:
        raise UserError(f"{owner} has no log in {group} yet: wait until it runs")


def _host(stream: str, prefix: str) -> str:
    """Return the beginning of the lines of every host but the first: JOB/algo-2-1700000000."""
    host = stream.removeprefix(prefix).rpartition("-")[0]
    return f"{host}: " if prefix and host != FIRST_HOST else ""
