"""The sections of the settings file.

Every key has a default, so that a file for this machine alone can be short;
`settings_file.REQUIRED` lists the keys that a verb needs on SageMaker.
"""

import itertools
import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from container.classifier.channel_names import CHANNEL_NAMES, TRAINING, WEIGHTS, find_channel
from image_classifier.settings import service_model
from image_classifier.settings.debugging import Debugger, Profiler
from image_classifier.settings.section import Scalar, Section, Strings, like, one_of, to_strings
from image_classifier.settings.tuning import Tuning

HOUR = 3600

# A tuning job's name has 32 characters, 14 of which are the time.
MAX_NAME = 17
_ROLE = r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+"
_BUCKET = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
_CONTAINER_IMAGE = r"\d{12}\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?/.+"
_ECR_EXAMPLE = "111122223333.dkr.ecr.eu-west-1.amazonaws.com/image-classifier-train:TAG"

CHANNELS = tuple(itertools.chain(*CHANNEL_NAMES.values()))

Count = Annotated[int, Field(ge=1, le=100)]
ContainerImage = Annotated[str, like(_CONTAINER_IMAGE, f"a container image in ECR, {_ECR_EXAMPLE}")]


def _instance_type(enumeration: str) -> AfterValidator:
    """Return a validator of instance types, by the name of SageMaker's list of them."""

    def check(name: str) -> str:
        if name not in service_model.choices(enumeration):
            hint = "" if name.startswith("ml.") else f"; did you mean ml.{name}?"
            raise ValueError(f"must be an instance type that SageMaker has for this{hint}")
        return name

    return AfterValidator(check)


def _check_tag(key: str) -> str:
    if key.lower().startswith("aws:") or len(key) > 128:  # noqa: PLR2004 - the API's limit
        raise ValueError("must be a tag key of up to 128 characters that does not begin with aws:")
    return key


class Aws(Section):
    """[aws]: the account. `--local` needs none of it."""

    role: Annotated[str, like(_ROLE, "arn:aws:iam::111122223333:role/NAME")] = ""
    """ARN of the role that jobs and endpoints run as."""
    region: Annotated[str, like(r"[a-z]{2}(-[a-z]+)+-\d", "eu-west-1")] = ""
    """Such as eu-west-1. Unset: the environment's region."""
    bucket: Annotated[str, like(_BUCKET, "my-bucket, a name without s3://")] = ""
    """Bucket for job output: s3://BUCKET/NAME/."""
    subnets: Strings = ()
    """With `security_groups`: the VPC in which jobs and endpoints run."""
    security_groups: Strings = ()
    """With `subnets`: the VPC in which jobs and endpoints run."""
    network_isolation: bool = False
    """Containers have no network access and no credentials."""
    encrypt_traffic: bool = False
    """Encrypt the traffic between the hosts of a job."""
    kms_key: str | None = None
    """Key that encrypts the disks and the output on S3."""
    tags: dict[Annotated[str, AfterValidator(_check_tag)], str] = Field(default_factory=dict)
    """Tags of all created resources."""

    def _contradictions(self) -> Iterator[tuple[str, str]]:
        if bool(self.subnets) != bool(self.security_groups):
            missing = "security_groups" if self.subnets else "subnets"
            given = "subnets" if self.subnets else "security_groups"
            yield given, f"define a VPC only together with {missing}"


class ContainerImages(Section):
    """[images]: the container images. Unset: those that push.sh wrote into images.json."""

    train: ContainerImage | None = None
    serve: ContainerImage | None = None


class Data(Section):
    """[data]: the channels, each a folder of its name, on this machine and on S3."""

    local: str | None = None
    """Folder on this machine, relative to the settings file."""
    s3: Annotated[str, like(rf"s3://{_BUCKET}(/.*)?", "s3://bucket/prefix")] | None = None
    """Such as s3://BUCKET/images. Unset: s3://BUCKET/NAME/data."""
    channels: Annotated[
        tuple[Annotated[str, one_of(CHANNELS)], ...], Field(strict=False, min_length=1)
    ] = ("training", "validation")
    """Channels of a training job."""
    mode: Literal["File", "FastFile"] = "File"
    """`FastFile` streams images when they are read, `File` copies all of them first."""

    def _contradictions(self) -> Iterator[tuple[str, str]]:
        if not find_channel(TRAINING, self.channels):
            yield "channels", "must have training"


class Training(Section):
    """[training]: the instances of a training job."""

    instance_type: Annotated[str, _instance_type("TrainingInstanceType")] = "ml.g5.xlarge"
    instance_count: Count = 1

    volume_gb: int = Field(default=30, ge=1, le=16_384)
    """Disk of each instance."""
    max_hours: float = Field(default=24.0, ge=0.02, le=672)
    """Time limit of a training job."""
    spot: bool = False
    """Use spot instances, which are cheaper; an interrupted job continues from its checkpoint."""
    max_wait_hours: float | None = None
    """Time limit of a spot job, waiting included. Unset: twice max_hours."""
    keep_alive_minutes: int = Field(default=0, ge=0, le=60)
    """How long the instances stay warm for the next job."""

    @property
    def max_wait_seconds(self) -> int:
        """Return the time limit of a spot job."""
        return round((self.max_wait_hours or 2 * self.max_hours) * HOUR)

    def _contradictions(self) -> Iterator[tuple[str, str]]:
        if self.max_wait_hours is not None and not self.spot:
            yield "max_wait_hours", "requires spot = true"
        elif self.max_wait_hours is not None and self.max_wait_hours < self.max_hours:
            yield "max_wait_hours", f"is less than max_hours, {self.max_hours:g}"
        if self.spot and self.keep_alive_minutes:
            yield "keep_alive_minutes", "is not for spot instances: set it to 0 or spot = false"


class DataCapture(Section):
    """[endpoint.capture]: requests and responses that the endpoint stores on S3."""

    percent: int = Field(default=100, ge=1, le=100)
    """Share of the requests."""
    requests: bool = True
    answers: bool = True

    def _contradictions(self) -> Iterator[tuple[str, str]]:
        if not (self.requests or self.answers):
            yield "answers", "and requests are both false: drop the section to capture nothing"


class Endpoint(Section):
    """[endpoint]: how the model is served."""

    kind: Literal["real-time", "serverless", "asynchronous", "multi-model"] = "real-time"
    instance_type: Annotated[str, _instance_type("ProductionVariantInstanceType")] = "ml.c7i.large"

    instance_count: Count = 1
    memory_mb: Literal[1024, 2048, 3072, 4096, 5120, 6144] = 3072
    """Serverless: memory, to which the CPU share is proportional."""
    max_concurrency: int = Field(default=5, ge=1, le=200)
    """Serverless: concurrent requests."""
    models: Strings = ()
    """Multi-model: training jobs whose models `deploy` copies under one prefix."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Environment variables of the server; the README lists them."""
    capture: DataCapture | None = None
    """[endpoint.capture]: store requests and responses on S3."""

    def _contradictions(self) -> Iterator[tuple[str, str]]:
        if self.kind == "serverless" and self.capture is not None:
            yield "capture", "is not supported by serverless endpoints"
        if self.kind == "multi-model" and re.match(r"ml\.[gp]\d", self.instance_type):
            yield "instance_type", "has a GPU: SageMaker serves multi-model endpoints on CPUs only"
        if self.models and self.kind != "multi-model":
            yield "models", 'requires kind = "multi-model"'


class Transform(Section):
    """[transform]: batch predictions for a folder of images."""

    instance_type: Annotated[str, _instance_type("TransformInstanceType")] = "ml.c7i.xlarge"
    instance_count: Count = 1

    content_type: str = "application/x-image"
    """Media type of the input."""
    accept: Literal["application/json", "application/jsonlines", "text/csv"] = "application/json"
    """Media type of the output. In CSV, one image that cannot be decoded fails the job."""
    max_payload_mb: int = Field(default=6, ge=1, le=100)
    """Size limit of an image."""


class Explain(Section):
    """[explain]: explanations of predictions."""

    instance_type: Annotated[str, _instance_type("ProcessingInstanceType")] = "ml.c5.xlarge"
    """Instance type of a SageMaker Clarify job, if the account has Clarify."""
    instance_count: Count = 1
    num_samples: int = Field(default=500, ge=1, le=10_000)
    """Masked images to predict per explained image."""
    num_segments: int = Field(default=20, ge=2, le=1000)
    """Segments into which an image is divided."""


class Settings(Section):
    """The whole file."""

    name: Annotated[
        str,
        like(
            rf"(?=.{{1,{MAX_NAME}}}$)[a-z][a-z0-9]*(-[a-z0-9]+)*",
            f"my-job2: up to {MAX_NAME} small letters, digits and single hyphens, a letter first",
        ),
    ] = ""
    """Prefix of the names of all created resources."""
    aws: Aws = Aws()
    images: ContainerImages = ContainerImages()
    data: Data = Data()
    training: Training = Training()
    hyperparameters: dict[str, Scalar] = Field(default_factory=dict)
    """[hyperparameters]: as the README lists them."""
    metrics: dict[str, str] = Field(default_factory=dict)
    """[metrics]: more metrics, by name: regular expressions that find them in the log."""
    tuning: Tuning | None = None
    debugger: Debugger = Debugger()
    profiler: Profiler = Profiler()
    endpoint: Endpoint = Endpoint()
    transform: Transform = Transform()
    explain: Explain = Explain()

    def _contradictions(self) -> Iterator[tuple[str, str]]:
        if not self.name:
            yield "name", "is missing: it begins the names of all created resources"
        for key in ("train", "serve"):
            uri = re.fullmatch(_CONTAINER_IMAGE, getattr(self.images, key) or "")
            if uri and self.aws.region and uri["region"] != self.aws.region:
                regions = f"is in {uri['region']}, and aws.region is {self.aws.region}"
                yield f"images.{key}", f"{regions}: SageMaker pulls only from its own region"
        has_vpc = bool(self.aws.subnets)
        if self.endpoint.kind == "serverless" and (has_vpc or self.aws.network_isolation):
            yield "endpoint.kind", "serverless supports neither a VPC nor network isolation"
        if self.aws.network_isolation and self._downloads_weights():
            problem = "network_isolation prevents the download of pretrained weights"
            yield "aws.network_isolation", f"{problem}: add the channel weights to data.channels"

    def _downloads_weights(self) -> bool:
        given = self.hyperparameters
        # As the training program decides it.
        is_pretrained = given.get("pretrained", given.get("network", "resnet18") != "small")
        return bool(is_pretrained) and not find_channel(WEIGHTS, self.data.channels)

    def job_hyperparameters(self) -> dict[str, str]:
        """Return the hyperparameters of a training job: the file's, and its debugger rules."""
        rules = self.debugger.configurations()
        return to_strings({**({"debug_rules": rules} if rules else {}), **self.hyperparameters})

    @property
    def output(self) -> str:
        """Return the S3 prefix of everything that jobs and endpoints write."""
        return f"s3://{self.aws.bucket}/{self.name}/output"

    @property
    def channels_uri(self) -> str:
        """Return the S3 prefix of the channels."""
        return (self.data.s3 or f"s3://{self.aws.bucket}/{self.name}/data").rstrip("/")
