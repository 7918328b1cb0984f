"""What is examined, with which inputs and limits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from image_classifier.platform.doctor.report import Report
from image_classifier.platform.sandbox.launch import Target

GIB = 2**30


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Inputs of the program; the doctor has small ones by default."""

    model: Path | None = None
    """Folder or .tar.gz with the content of /opt/ml/model."""

    data: Path | None = None
    """Folder of channels: /opt/ml/input/data."""

    request: bytes | None = None
    """Body of a valid request."""

    content_type: str = "application/octet-stream"

    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of the program."""

    hyperparameters: Mapping[str, str] = field(default_factory=dict)

    port: int = 8080
    """Of a command; container images always have 8080."""

    memory: int = 4 * GIB
    """Bytes that the program may use."""

    settings: Sequence[Mapping[str, str]] = ()
    """Environment variables that a load test compares; empty: those that the image documents."""

    p99: float | None = None
    """Limit of the 99th percentile of response times in a load test; None: no load test."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeLimits:
    """Times in seconds."""

    startup: float = 50
    """SageMaker waits 480."""

    ping: float = 2

    invocation: float = 60

    serving_grace: float = 30

    training_grace: float = 120

    job: float = 600
    """Of one training job of the doctor."""

    watch: float = 20
    """How long /ping is watched, from its first 200."""

    growth: float = 4
    """Of a series of requests that shows whether the memory grows."""

    load: float = 4
    """Of a measurement at one rate of requests."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Examination:
    """One run of the doctor."""

    target: Target
    role: str
    options: Options
    limits: TimeLimits
    report: Report

    folder: Path
    """Temporary folder for /opt/ml."""

    def without_report(self) -> Self:
        """Return an examination whose failures are not reported."""
        return replace(self, report=Report([]))
