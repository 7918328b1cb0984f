"""`logs`: the log of a training job or of the endpoint, from CloudWatch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from container.classifier.errors import UserError
from image_classifier.sagemaker import resources
from image_classifier.sagemaker.aws import Aws, explained
from image_classifier.settings.schema import Settings

TRAINING_JOBS, ENDPOINTS = "/aws/sagemaker/TrainingJobs", "/aws/sagemaker/Endpoints"

FIRST_HOST = "algo-1"


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a log."""

    message: str

    host: str | None = None
    """Name of the host that wrote it; None for the endpoint, and on this machine."""

    time: datetime | None = None
    """When it was written; None on this machine."""

    def __str__(self) -> str:
        """Return the text; that of other hosts than the first begins with the host's name."""
        return (
            f"{self.host}: {self.message}" if self.host not in {None, FIRST_HOST} else self.message
        )

    def document(self) -> dict[str, str | None]:
        """Return the line for programs."""
        time = None if self.time is None else self.time.isoformat(timespec="milliseconds")
        return {"time": time, "host": self.host, "message": self.message}


def of_training(aws: Aws, settings: Settings, job: str | None = None) -> Iterator[Line]:
    """Yield the lines of a training job's log, by default of the newest job, whatever its status.

    Raises:
        UserError: no job exists, it has no log yet, or AWS rejected a request.
    """
    name = job or resources.newest_job(aws, settings, is_completed=False)
    yield from _lines(aws, TRAINING_JOBS, f"{name}/", name)


def of_endpoint(aws: Aws, settings: Settings) -> Iterator[Line]:
    """Yield the lines of the endpoint's log.

    Raises:
        UserError: it has no log, or AWS rejected a request.
    """
    yield from _lines(aws, f"{ENDPOINTS}/{settings.name}", "", f"endpoint {settings.name}")


def _lines(aws: Aws, group: str, prefix: str, owner: str) -> Iterator[Line]:
    request = {"logGroupName": group} | ({"logStreamNamePrefix": prefix} if prefix else {})
    is_empty = True
    with explained("FilterLogEvents"):
        try:
            for page in aws.pages("FilterLogEvents", request, "logs"):
                for event in page["events"]:
                    is_empty = False
                    yield _line(event, prefix)
        except ClientError as error:
            # The service creates the group with its first log.
            if error.response["Error"]["Code"] != "ResourceNotFoundException":
                raise
    if is_empty:
        raise UserError(f"{owner} has no log in {group} yet: wait until it runs")


def _line(event: Mapping[str, Any], prefix: str) -> Line:
    # The stream of a job is JOB/algo-2-1700000000, and its prefix JOB/.
    host = event["logStreamName"].removeprefix(prefix).rpartition("-")[0] if prefix else None
    time = datetime.fromtimestamp(event["timestamp"] / 1000, UTC)
    return Line(event["message"].rstrip("\n"), host, time)
