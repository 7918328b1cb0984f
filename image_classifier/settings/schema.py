"""What one TOML file says of jobs and endpoints: its sections, and what is wrong in each.

Everything has a default, so that a file for this machine alone may be short; `needs` says what a
verb cannot do without.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from image_classifier.settings import service_model
from image_classifier.settings.capture import Capture
from image_classifier.settings.debugging import RULES, Debugger, Profiler
from image_classifier.settings.tuning import Tuning

Found = Iterator[tuple[str, str]]

HOUR = 3600

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
# A tuning job's name has 32 characters, 14 of which are the time.
MAX_NAME = 17
_ROLE = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+")
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_S3 = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?")
_IMAGE = re.compile(
    r"(?P<registry>\d{12}\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?)/.+"
)
_CHANNEL = re.compile(r"[A-Za-z0-9._-]{1,64}")

CHANNELS = ("training", "train", "validation", "val", "valid", "test", "weights", "model")


@dataclass(frozen=True, kw_only=True, slots=True)
class Aws:
    """[aws]: the account's side. Nothing of it is needed for --local."""

    role: str = ""
    """ARN of the role that jobs and endpoints run as."""

    region: str = ""
    """Such as eu-west-1; without it the environment's."""

    bucket: str = ""
    """Takes what jobs write: s3://BUCKET/NAME/."""

    subnets: tuple[str, ...] = ()
    """With `security_groups`: the VPC in which jobs and endpoints run."""

    security_groups: tuple[str, ...] = ()

    network_isolation: bool = False
    """No traffic out of the containers, and no credentials in them."""

    encrypt_traffic: bool = False
    """Between the hosts of a job."""

    kms_key: str | None = None
    """Encrypts the disks and what is written to S3."""

    tags: Mapping[str, str] = field(default_factory=dict)
    """Of everything that is made."""

    def mistakes(self) -> Found:
        """Yield what is wrong here."""
        for name, pattern, example in (
            ("role", _ROLE, "arn:aws:iam::111122223333:role/NAME"),
            ("region", _REGION, "eu-west-1"),
            ("bucket", _BUCKET, "my-bucket, a name without s3://"),
        ):
            value = getattr(self, name)
            if value and not pattern.fullmatch(value):
                yield name, f"must look like {example}; got {value!r}"
        if bool(self.subnets) != bool(self.security_groups):
            missing = "security_groups" if self.subnets else "subnets"
            given = "subnets" if self.subnets else "security_groups"
            yield given, f"are a VPC only together with {missing}"
        for tag in self.tags:
            if tag.lower().startswith("aws:") or len(tag) > 128:  # noqa: PLR2004 - the API's limit
                yield f"tags.{tag}", "is no tag's key: up to 128 characters, not beginning aws:"


@dataclass(frozen=True, kw_only=True, slots=True)
class ContainerImages:
    """[images]: by default those that push.sh has written into images.json."""

    train: str | None = None
    serve: str | None = None

    def mistakes(self) -> Found:
        """Yield what is wrong here."""
        for name in ("train", "serve"):
            uri = getattr(self, name)
            if uri is not None and not _IMAGE.fullmatch(uri):
                example = "111122223333.dkr.ecr.eu-west-1.amazonaws.com/image-classifier-train:TAG"
                yield name, f"must be an image in ECR, such as {example}; got {uri!r}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """[data]: the channels, here and on S3, each a folder of its name."""

    local: str | None = None
    """Folder on this machine, relative to this file."""

    s3: str | None = None
    """Such as s3://BUCKET/images. Unset: s3://BUCKET/NAME/data."""

    channels: tuple[str, ...] = ("training", "validation")
    mode: Literal["File", "FastFile"] = "File"
    """`FastFile` reads images when they are asked for, instead of copying all of them first."""

    def mistakes(self) -> Found:
        """Yield what is wrong here."""
        if self.s3 is not None and not _S3.fullmatch(self.s3):
            yield "s3", f"must look like s3://bucket/prefix; got {self.s3!r}"
        if not self.channels:
            yield "channels", "must name a channel at least: training"
        for channel in self.channels:
            if channel not in CHANNELS or not _CHANNEL.fullmatch(channel):
                yield "channels", f"{channel!r} is none that is read: {', '.join(CHANNELS)}"
        if self.channels and not {"training", "train"} & set(self.channels):
            yield "channels", "must have training"


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """[training]: the machines of a job."""

    instance_type: str = "ml.g5.xlarge"
    instance_count: int = 1
    volume_gb: int = 30
    max_hours: float = 24.0
    spot: bool = False
    """Reclaimable machines, cheaper; the job continues from its checkpoint."""
    max_wait_hours: float | None = None
    """Of a spot job, with waiting. Unset: twice max_hours."""
    keep_alive_minutes: int = 0
    """How long the machines wait for another job."""

    def mistakes(self) -> Found:
        """Yield what is wrong here."""
        yield from instance(self.instance_type, "TrainingInstanceType")
        yield from between(self, ("instance_count", 1, 100), ("volume_gb", 1, 16_384))
        yield from between(self, ("max_hours", 0.02, 672.0), ("keep_alive_minutes", 0, 60))
        if self.max_wait_hours is not None and not self.spot:
            yield "max_wait_hours", "is for spot = true alone"
        elif self.max_wait_hours is not None and self.max_wait_hours < self.max_hours:
            yield "max_wait_hours", f"is less than max_hours, {self.max_hours:g}"
        if self.spot and self.keep_alive_minutes:
            yield "keep_alive_minutes", "is not for spot machines: set it to 0 or spot = false"


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """[endpoint]: how the model is asked."""

    kind: Literal["real-time", "serverless", "asynchronous", "multi-model"] = "real-time"
    instance_type: str = "ml.c7i.large"
    instance_count: int = 1
    memory_mb: int = 3072
    """Serverless: its processors grow with it."""
    max_concurrency: int = 5
    """Serverless: requests at a time."""
    models: tuple[str, ...] = ()
    """Multi-model: names of training jobs, whose models `deploy` copies beside each other."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Of the server; the README lists what it reads."""
    capture: Capture | None = None
    """[endpoint.capture]: keeps requests and answers on S3."""

    def mistakes(self) -> Found:
        """Yield what is wrong here."""
        yield from instance(self.instance_type, "ProductionVariantInstanceType")
        yield from between(self, ("instance_count", 1, 100), ("max_concurrency", 1, 200))
        if self.memory_mb not in range(1024, 6145, 1024):
            yield "memory_mb", f"must be 1024 to 6144 in steps of 1024, got {self.memory_mb}"
        if self.kind == "serverless" and self.capture is not None:
            yield "capture", "is not for serverless endpoints: they keep nothing"
        if self.kind == "multi-model" and re.match(r"ml\.[gp]\d", self.instance_type):
            yield "instance_type", "has a GPU: SageMaker serves several models on processors alone"
        if self.models and self.kind != "multi-model":
            yield "models", 'are for kind = "multi-model" alone'


@dataclass(frozen=True, kw_only=True, slots=True)
class Transform:
    """[transform]: answers for a whole folder of images."""

    instance_type: str = "ml.c7i.xlarge"
    instance_count: int = 1
    content_type: str = "application/x-image"
    accept: Literal["application/json", "application/jsonlines", "text/csv"] = "application/json"
    """In CSV, one image that cannot be read fails the job."""

    max_payload_mb: int = 6
    """Of the largest image."""

    def mistakes(self) -> Found:
        """Yield what is wrong here."""
        yield from instance(self.instance_type, "TransformInstanceType")
        yield from between(self, ("instance_count", 1, 100), ("max_payload_mb", 1, 100))


@dataclass(frozen=True, kw_only=True, slots=True)
class Explain:
    """[explain]: what made the model answer as it did."""

    instance_type: str = "ml.c5.xlarge"
    """Of a job of SageMaker Clarify, where the account still has it."""
    instance_count: int = 1
    num_samples: int = 500
    """Masked images asked per image."""
    num_segments: int = 20
    """Parts into which an image is cut."""

    def mistakes(self) -> Found:
        """Yield what is wrong here."""
        yield from instance(self.instance_type, "ProcessingInstanceType")
        yield from between(
            self, ("instance_count", 1, 100), ("num_samples", 1, 10_000), ("num_segments", 2, 1000)
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The whole file."""

    name: str = ""
    """Begins the names of all that is made."""

    aws: Aws = field(default_factory=Aws)
    images: ContainerImages = field(default_factory=ContainerImages)
    data: Data = field(default_factory=Data)
    training: Training = field(default_factory=Training)
    hyperparameters: Mapping[str, object] = field(default_factory=dict)
    """[hyperparameters]: as the README lists them."""
    metrics: Mapping[str, str] = field(default_factory=dict)
    """[metrics]: regular expressions of your own by name, beside the training program's."""
    tuning: Tuning | None = None
    debugger: Debugger = field(default_factory=Debugger)
    profiler: Profiler = field(default_factory=Profiler)
    endpoint: Endpoint = field(default_factory=Endpoint)
    transform: Transform = field(default_factory=Transform)
    explain: Explain = field(default_factory=Explain)

    def mistakes(self) -> Found:
        """Yield what is wrong between sections."""
        if not self.name:
            yield "name", "is missing: what begins the names of all that is made"
        elif not _NAME.fullmatch(self.name) or len(self.name) > MAX_NAME:
            rule = f"must be up to {MAX_NAME} small letters, digits and single hyphens"
            yield "name", f"{rule}, a letter first; got {self.name!r}"
        for key in ("train", "serve"):
            image = _IMAGE.fullmatch(getattr(self.images, key) or "")
            if image and self.aws.region and image["region"] != self.aws.region:
                where = f"is in {image['region']}, and aws.region is {self.aws.region}"
                yield f"images.{key}", f"{where}: SageMaker pulls from its own region alone"
        is_vpc = bool(self.aws.subnets)
        if self.endpoint.kind == "serverless" and (is_vpc or self.aws.network_isolation):
            sentence = "serverless has neither a VPC nor network isolation: drop them in [aws]"
            yield "endpoint.kind", sentence
        if self.aws.network_isolation and self._would_download():
            sentence = "network_isolation leaves no way to download pretrained weights"
            yield "aws.network_isolation", f"{sentence}: add the channel weights to data.channels"

    def _would_download(self) -> bool:
        given = self.hyperparameters
        # As the training program decides it.
        wants = given.get("pretrained", given.get("network", "resnet18") != "small")
        return bool(wants) and not {"weights", "model"} & set(self.data.channels)

    def job_hyperparameters(self) -> dict[str, str]:
        """Return the hyperparameters of a training job: the file's, and its debugger rules."""
        rules = [
            {
                "RuleConfigurationName": RULES[rule][0],
                "RuleParameters": to_strings(self.debugger.parameters.get(rule, {})),
            }
            for rule in self.debugger.rules
        ]
        return to_strings({**({"debug_rules": rules} if rules else {}), **self.hyperparameters})

    @property
    def output(self) -> str:
        """Where on S3 all goes that is made."""
        return f"s3://{self.aws.bucket}/{self.name}/output"

    @property
    def channels_uri(self) -> str:
        """Where on S3 the channels lie."""
        return (self.data.s3 or f"s3://{self.aws.bucket}/{self.name}/data").rstrip("/")


def instance(name: str, enumeration: str) -> Found:
    """Yield that an instance type is none, where it is none."""
    if name not in service_model.choices(enumeration):
        hint = "" if name.startswith("ml.") else f"; did you mean ml.{name}?"
        yield "instance_type", f"{name!r} is none of SageMaker's for this{hint}"


def between(section: object, *ranges: tuple[str, float, float]) -> Found:
    """Yield what is outside of its range."""
    for name, low, high in ranges:
        value = getattr(section, name)
        if not low <= value <= high:
            yield name, f"must be {low:g} to {high:g}, got {value!r}"


def to_strings(values: Mapping[str, object]) -> dict[str, str]:
    """Return values as the API requires them: text as it is, anything else as JSON."""
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in values.items()}
