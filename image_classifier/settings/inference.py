"""[endpoint], [transform] and [explain]: how a trained model is used."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import Field

from container.classifier.environment import PAYLOAD_VARIABLE
from image_classifier.settings.fields import Count, Strings, instance_for
from image_classifier.settings.known_names import ENVIRONMENT
from image_classifier.settings.section import Conflict, Section
from image_classifier.settings.suggestion import find_near, suggestion

# All variables with this prefix are the server's. Others are unknown only if they are similar.
OWN_PREFIX, SIMILAR = "SAGEMAKER_CLASSIFIER_", 0.9

# Media types of lines that a request can have several of.
LINES = ("application/jsonlines", "application/x-ndjson")
# SageMaker's limits for a request, in MB (2**20 bytes), by kind of endpoint.
PAYLOAD_MB: Mapping[str, int] = {
    "real-time": 6,
    "multi-model": 6,
    "serverless": 4,
    "asynchronous": 1024,
}
# The server's default limit; newer documents of AWS have it for real-time endpoints too.
SERVER_MB = 25

# Families of instances with arm64 processors: ml.c7g, ml.m6gd, ml.p6e-gb200; not ml.g5 or ml.g4dn.
ARM64 = re.compile(r"ml\.[a-z]+\d+(g|e-gb)")


class DataCapture(Section):
    """[endpoint.capture]: requests and responses that the endpoint stores on S3."""

    percent: int = Field(default=100, ge=1, le=100)
    """Percentage of the requests that is stored."""
    requests: bool = True
    """Store requests, which contain the images."""
    answers: bool = True
    """Store responses, which contain the predictions."""

    def _conflicts(self) -> Iterator[Conflict]:
        if not (self.requests or self.answers):
            yield Conflict(
                "answers", "and requests are both false: drop the section to capture nothing"
            )


class Rollout(Section):
    """[endpoint.rollout]: how an update moves traffic to new instances (blue/green)."""

    traffic: Literal["all-at-once", "canary", "linear"] = "canary"
    """`canary`: first `step_percent` of the instances, then all. `linear`: `step_percent` more at
    each step. `all-at-once`: all at the same time."""
    step_percent: int = Field(default=50, ge=10, le=50)
    """Percentage of the new instances that receive traffic at a step of `canary` or `linear`."""
    wait_minutes: int = Field(default=5, ge=0, le=60)
    """Minutes for which the alarms are watched at each step."""
    keep_minutes: int = Field(default=0, ge=0, le=60)
    """Minutes for which the old instances run, and cost money, after the last step."""
    max_minutes: int = Field(default=60, ge=10, le=480)
    """Time limit of the update, after which SageMaker rolls it back."""
    alarms: Annotated[Strings, Field(max_length=10)] = ()
    """Names of CloudWatch alarms. If one is in alarm, SageMaker rolls the update back."""


class Scaling(Section):
    """[endpoint.scaling]: how the number of instances follows the requests."""

    min_instances: int = Field(default=1, ge=0, le=100)
    """Least number of instances. 0 is for `real-time` and `asynchronous` endpoints: they cost
    nothing without requests, and the first request waits minutes for an instance."""
    max_instances: int = Field(default=4, ge=1, le=100)
    """Largest number of instances."""
    invocations_per_minute: int = Field(default=600, ge=1, le=1_000_000)
    """Requests per minute and instance; above it instances are added, below it removed. Not used by
    `asynchronous`."""
    backlog: int = Field(default=5, ge=1, le=100_000)
    """Waiting requests per instance of an `asynchronous` endpoint; above it instances are added."""
    scale_out_minutes: int = Field(default=1, ge=0, le=60)
    """Minutes between two additions of instances."""
    scale_in_minutes: int = Field(default=5, ge=0, le=60)
    """Minutes between two removals of instances."""

    def _conflicts(self) -> Iterator[Conflict]:
        if self.max_instances < self.min_instances:
            message = f"is less than min_instances, {self.min_instances}"
            yield Conflict("max_instances", message, needs="min_instances")


class Endpoint(Section):
    """[endpoint]: how the model is served."""

    kind: Literal["real-time", "serverless", "asynchronous", "multi-model"] = "real-time"
    """`real-time`: instances that respond at once. `serverless`: costs nothing without requests.
    `asynchronous`: reads images from S3 and writes responses to S3. `multi-model`: serves several
    models on the same instances."""
    instance_type: Annotated[str, instance_for("ProductionVariantInstanceType")] = "ml.c7i.large"
    """Instance type of the endpoint. Not used by `serverless`. Graviton processors, such as
    `ml.c7g.large`, run the container image `images.serve_arm64`."""
    instance_count: Count = 1
    """Instances of the endpoint. Not used by `serverless`."""
    memory_mb: Literal[1024, 2048, 3072, 4096, 5120, 6144] = 3072
    """Memory of a `serverless` endpoint, in MB. Its share of CPUs is proportional to it."""
    max_concurrency: int = Field(default=5, ge=1, le=200)
    """Concurrent requests of a `serverless` endpoint."""
    models: Strings = ()
    """Training jobs whose models `deploy` copies to a `multi-model` endpoint. Unset: the newest."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Environment variables of the server: a table of names and values."""
    capture: DataCapture | None = None
    """Store requests and responses on S3. Unset: store nothing."""
    deploy_minutes: float = Field(default=60, ge=1, le=600)
    """Time limit of `deploy`: a longer deployment is a failure, and continues on SageMaker."""
    rollout: Rollout | None = None
    """Blue/green update of the endpoint. Unset: SageMaker's default, all traffic at once."""

    scaling: Scaling | None = None
    """Autoscaling of the instances. Unset: always `instance_count`."""

    @property
    def is_arm64(self) -> bool:
        """Whether the instances have arm64 processors (Graviton, Grace)."""
        return self.kind != "serverless" and bool(ARM64.match(self.instance_type))

    @property
    def has_gpu(self) -> bool:
        """Whether the instances have GPUs."""
        return bool(re.match(r"ml\.[gp]\d", self.instance_type))

    @property
    def has_component(self) -> bool:
        """Whether the model is an inference component: only these scale to zero in real time."""
        return (
            self.kind == "real-time" and self.scaling is not None and not self.scaling.min_instances
        )

    @property
    def max_request_mb(self) -> int:
        """The largest request, in MB: the lower limit of SageMaker's and the server's."""
        server = int(self.environment.get(PAYLOAD_VARIABLE) or 0) or SERVER_MB
        return min(PAYLOAD_MB[self.kind], server)

    def _conflicts(self) -> Iterator[Conflict]:
        if self.kind == "serverless" and self.capture is not None:
            yield Conflict("capture", "is not supported by serverless endpoints")
        if self.scaling is not None:
            yield from self._scaling_conflicts(self.scaling)
        if self.rollout is not None:
            yield from self._rollout_conflicts(self.rollout)
        if self.kind == "multi-model" and self.has_gpu:
            yield Conflict(
                "instance_type",
                "has a GPU: SageMaker serves multi-model endpoints on CPUs only",
                needs="kind",
            )
        if self.models and self.kind != "multi-model":
            yield Conflict("models", 'requires kind = "multi-model"', needs="kind")
        yield from self._environment_conflicts()

    def _environment_conflicts(self) -> Iterator[Conflict]:
        for name, value in self.environment.items():
            if name in ENVIRONMENT:
                if (reason := ENVIRONMENT[name].rejection(value)) is not None:
                    yield Conflict(f"environment.{name}", reason)
                elif name == PAYLOAD_VARIABLE and int(value) > self._sent_mb:
                    limit = f"SageMaker sends at most {self._sent_mb} MB to {self.kind} endpoints"
                    yield Conflict(
                        f"environment.{name}", f"is too high: {limit}, got {value}", needs="kind"
                    )
            elif name.startswith(OWN_PREFIX) or find_near(name, ENVIRONMENT, SIMILAR):
                yield Conflict(f"environment.{name}", f"is unknown{suggestion(name, ENVIRONMENT)}")

    @property
    def _sent_mb(self) -> int:
        limit = PAYLOAD_MB[self.kind]
        return limit if self.kind == "serverless" else max(limit, SERVER_MB)

    def _scaling_conflicts(self, scaling: Scaling) -> Iterator[Conflict]:
        if self.kind == "serverless":
            yield Conflict(
                "scaling", "is not for serverless endpoints, which scale without it", needs="kind"
            )
            return
        if self.instance_type.startswith("ml.t"):
            yield Conflict(
                "instance_type", "is burstable, and SageMaker does not scale such instances"
            )
        if scaling.min_instances == 0 and self.kind == "multi-model":
            message = 'is 0, which requires kind = "real-time" or "asynchronous"'
            yield Conflict("scaling.min_instances", message, needs="kind")
        low, high = scaling.min_instances, scaling.max_instances
        if not low <= self.instance_count <= high:
            limits = f"scaling.min_instances and max_instances, {low} to {high}"
            message = f"must be within {limits}, got {self.instance_count}"
            yield Conflict("instance_count", message, needs="scaling")

    def _rollout_conflicts(self, rollout: Rollout) -> Iterator[Conflict]:
        if self.kind == "serverless":
            yield Conflict("rollout", "is not supported by serverless endpoints", needs="kind")
        elif self.has_component:
            message = "is not supported by real-time endpoints that scale to zero"
            yield Conflict("rollout", message, needs="scaling.min_instances")
        elif rollout.traffic != "all-at-once" and self.instance_count == 1:
            yield Conflict(
                "rollout.traffic", "requires instance_count of 2 or more", needs="instance_count"
            )


class Transform(Section):
    """[transform]: batch predictions for a folder of images."""

    instance_type: Annotated[str, instance_for("TransformInstanceType")] = "ml.c7i.xlarge"
    """Instance type of transform jobs."""
    instance_count: Count = 1
    """Instances of a transform job. They share the images."""
    content_type: str = "application/x-image"
    """Media type of the input."""
    accept: Literal["application/json", "application/jsonlines", "text/csv"] = "application/json"
    """Media type of the output. In CSV, one image that cannot be decoded fails the job."""
    strategy: Literal["SingleRecord", "MultiRecord"] = "SingleRecord"
    """`SingleRecord`: each file is a request. `MultiRecord`: the lines of files are divided into
    requests of at most `max_payload_mb`, for images in JSON Lines."""
    top: int | None = Field(default=None, ge=1)
    """Number of the most probable classes in the output, for models of many classes; by default
    all. Not in CSV."""
    max_payload_mb: int = Field(default=6, ge=1, le=100)
    """Size limit of a request, in MB: of an image, or of several lines."""

    @property
    def accept_header(self) -> str:
        """The Accept header of requests."""
        return f"{self.accept};top={self.top}" if self.top else self.accept

    def _conflicts(self) -> Iterator[Conflict]:
        if self.strategy == "MultiRecord":
            if self.content_type not in LINES:
                kinds = " or ".join(LINES)
                yield Conflict(
                    "strategy", f"requires content_type of {kinds}", needs="content_type"
                )
            if self.accept == "application/json":
                yield Conflict(
                    "strategy",
                    "requires accept of application/jsonlines or text/csv",
                    needs="accept",
                )
        if self.top and self.accept == "text/csv":
            yield Conflict(
                "top",
                "requires accept of application/json or application/jsonlines",
                needs="accept",
            )


class Explain(Section):
    """[explain]: explanations of predictions."""

    instance_type: Annotated[str, instance_for("ProcessingInstanceType")] = "ml.c5.xlarge"
    """Instance type of a SageMaker Clarify job, if the account has Clarify."""
    instance_count: Count = 1
    """Instances of a SageMaker Clarify job."""
    num_samples: int = Field(default=500, ge=1, le=10_000)
    """Masked images that are predicted per explained image: at least 2 * `num_segments` + 2."""
    num_segments: int = Field(default=20, ge=2, le=1000)
    """Approximate number of segments into which an image is divided."""
    segment_compactness: float | None = Field(default=None, ge=0.01, le=100)
    """The higher, the more square are the segments; low values follow the edges, but can give far
    fewer segments than `num_segments`. Unset: the lowest of 5, 10, 20, ... with about
    `num_segments` segments, for each image; Clarify's job uses 5."""
    baseline: str | None = None
    """Image that is shown where segments are hidden, relative to the settings file. Unset: white
    noise, as in Clarify's job."""

    def _conflicts(self) -> Iterator[Conflict]:
        least = 2 * self.num_segments + 2
        if self.num_samples < least:
            limits = f"{self.num_segments} segments need {least} samples, got {self.num_samples}"
            key = "num_samples" if "num_samples" in self.model_fields_set else "num_segments"
            other = {"num_samples": "num_segments", "num_segments": "num_samples"}[key]
            yield Conflict(key, f"is impossible: {limits}", needs=other)
