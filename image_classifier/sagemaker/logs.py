"""The log of a training job or of the endpoint, from CloudWatch: read at once, or as it grows."""

import re
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from container.classifier.errors import UserError
from image_classifier.platform.opt_ml import FIRST_HOST
from image_classifier.sagemaker import aws as calls
from image_classifier.sagemaker.aws import Aws, RejectionError
from image_classifier.settings.schema import Settings

TRAINING_JOBS, ENDPOINTS = "/aws/sagemaker/TrainingJobs", "/aws/sagemaker/Endpoints"
COMPONENTS = "/aws/sagemaker/InferenceComponents"


# Lines of several hosts arrive late and out of order: this much is read again.
_OVERLAP_MS = 60_000

# A failure's message ends with so many lines.
_TAIL_LINES = 10

# ANSI codes of cyan, yellow, magenta, green and blue, for other hosts than the first one.
_COLORS = (36, 33, 35, 32, 34)

_PAIR = re.compile(r"(\w+)=(\S+)")


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


class Log:
    """A log that may still grow; every line is yielded once."""

    def __init__(self, aws: Aws, group: str, prefix: str = "", *, start: float = 0) -> None:
        """Name the log.

        Args:
            aws: the account.
            group: log group.
            prefix: that of the log streams, such as JOB/.
            start: time in Unix seconds; earlier lines are skipped.
        """
        self._aws, self._prefix = aws, prefix
        self._request: dict[str, Any] = {"logGroupName": group}
        self._request |= {"logStreamNamePrefix": prefix} if prefix else {}
        self._start = self._last = round(start * 1000)
        self._seen: dict[str, int] = {}
        self._problem = ""
        self._columns: list[str] = []
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)

    @property
    def position(self) -> str:
        """The time of the last line, for --since."""
        return datetime.fromtimestamp(self._last / 1000, UTC).isoformat(timespec="milliseconds")

    def new(self) -> Iterator[Line]:
        """Yield the lines that are new since the last call; none if the log does not exist yet.

        Raises:
            UserError: AWS rejected a request.
        """
        start = max(self._start, self._last - _OVERLAP_MS)
        self._seen = {event: time for event, time in self._seen.items() if time >= start}
        request = self._request | {"startTime": start}
        try:
            for page in self._aws.pages("FilterLogEvents", request, "logs"):
                for event in page["events"]:
                    if event["eventId"] not in self._seen:
                        self._seen[event["eventId"]] = event["timestamp"]
                        self._last = max(self._last, event["timestamp"])
                        yield _line(event, self._prefix)
        except RejectionError as error:
            # The service creates the group with its first log.
            if error.code != "ResourceNotFoundException":
                raise

    def show_new(self) -> None:
        """Print the new lines; a log that cannot be read does not end what waits for it."""
        try:
            for line in self.new():
                self._tail.append(str(line))
                for text in self.texts(line):
                    self._aws.show(text)
        except UserError as error:
            if str(error) != self._problem:
                self._problem = str(error)
                self._aws.show(f"the log is not shown: {error}")

    def tail(self) -> str:
        """Return the last lines that were read, as the end of a message."""
        if not self._tail:
            return ""
        return "\n".join(["\nlast lines of the log:", *self._tail])

    def texts(self, line: Line) -> Iterator[str]:
        """Yield a line as it is, or for a terminal: metrics as a table, hosts in color."""
        if not sys.stdout.isatty():
            yield str(line)
            return
        pairs = dict(_PAIR.findall(line.message))
        if "epoch" in pairs and len(pairs) == len(line.message.split()):
            if list(pairs) != self._columns:
                self._columns = list(pairs)
                yield "  ".join(f"{name:>8}" for name in pairs)
            yield "  ".join(f"{value:>{max(8, len(name))}}" for name, value in pairs.items())
        elif line.host in {None, FIRST_HOST}:
            yield str(line)
        else:
            number = sum(map(ord, str(line.host)))
            yield f"\x1b[{_COLORS[number % len(_COLORS)]}m{line.host}\x1b[0m: {line.message}"


def of_training(aws: Aws, job: str, *, start: float = 0) -> Log:
    """Return the log of a training job."""
    return Log(aws, TRAINING_JOBS, f"{job}/", start=start)


def of_endpoint(aws: Aws, settings: Settings, *, start: float = 0) -> Log:
    """Return the log of the endpoint, or of its inference component."""
    group = COMPONENTS if settings.endpoint.has_component else ENDPOINTS
    return Log(aws, f"{group}/{settings.name}", start=start)


def read(log: Log, owner: str) -> Iterator[Line]:
    """Yield the lines of a log.

    Raises:
        UserError: it is empty, or AWS rejected a request.
    """
    is_empty = True
    for line in log.new():
        is_empty = False
        yield line
    if is_empty:
        raise UserError(f"{owner} has no log yet: wait until it runs")


def follow(aws: Aws, log: Log, job: str | None) -> Iterator[Line]:
    """Yield the lines of a log as it grows, until the training job ends; an endpoint's forever.

    Raises:
        KeyboardInterrupt: with the option that continues after the last line.
        UserError: AWS rejected a request.
    """
    try:
        while True:
            is_running = job is None or calls.is_changing(
                aws.query("DescribeTrainingJob", {"TrainingJobName": job})["TrainingJobStatus"]
            )
            yield from log.new()
            if not is_running:
                return
            time.sleep(calls.POLL_SECONDS)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped; continue with --since {log.position}") from None


def _line(event: Mapping[str, Any], prefix: str) -> Line:
    # The stream of a job is JOB/algo-2-1700000000, and its prefix JOB/.
    host = event["logStreamName"].removeprefix(prefix).rpartition("-")[0] if prefix else None
    time = datetime.fromtimestamp(event["timestamp"] / 1000, UTC)
    return Line(event["message"].rstrip("\n"), host, time)
