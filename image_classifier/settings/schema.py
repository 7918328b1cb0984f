"""The sections of the settings file.

Every key has a default, so that a file for this machine alone can be short;
`settings_file.REQUIRED` lists the keys that a verb needs on SageMaker.
"""

import itertools
import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from container.classifier.channel_names import CHANNEL_NAMES, TRAINING, WEIGHTS, find_channel
from image_classifier.settings.debugging import Debugger, Profiler
from image_classifier.settings.fields import (
    BUCKET,
    CONTAINER_IMAGE,
    ContainerImage,
    Count,
    Scalar,
    Strings,
    TagKey,
    instance_for,
    like,
    one_of,
)
from image_classifier.settings.inference import Endpoint, Explain, Transform
from image_classifier.settings.section import Conflict, Section, to_strings
from image_classifier.settings.tuning import Tuning

HOUR = 3600

# A tuning job's name has 32 characters, 14 of which are the time.
MAX_NAME = 17
_ROLE = r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+"

CHANNELS = tuple(itertools.chain(*CHANNEL_NAMES.values()))


class Aws(Section):
    """[aws]: the account. `--local` needs none of it."""

    role: Annotated[str, like(_ROLE, "arn:aws:iam::111122223333:role/NAME")] = ""
    """ARN of the role that jobs and endpoints run as."""
    scheduler_role: Annotated[str, like(_ROLE, "arn:aws:iam::111122223333:role/NAME")] = ""
    """ARN of the role that deletes the endpoint of `deploy --expires`."""
    region: Annotated[str, like(r"[a-z]{2}(-[a-z]+)+-\d", "eu-west-1")] = ""
    """Region of all resources, such as eu-west-1. Unset: the region of the environment."""
    bucket: Annotated[str, like(BUCKET, "my-bucket, a name without s3://")] = ""
    """Bucket for the output of jobs and endpoints, in s3://BUCKET/NAME/output/."""
    subnets: Strings = ()
    """Subnets of the VPC in which jobs and endpoints run. Needs `security_groups`."""
    security_groups: Strings = ()
    """Security groups of jobs and endpoints in the VPC. Needs `subnets`."""
    network_isolation: bool = False
    """Run containers without network access and credentials."""
    encrypt_traffic: bool = False
    """Encrypt the traffic between the hosts of a job."""
    kms_key: str | None = None
    """KMS key (its id or ARN) that encrypts the disks of jobs and the output on S3.

    Instances with local storage, such as `ml.g5`, encrypt it with a key of their own.
    """
    tags: dict[TagKey, str] = Field(default_factory=dict)
    """Tags of all created resources: a table of keys and values."""

    def _conflicts(self) -> Iterator[Conflict]:
        if bool(self.subnets) != bool(self.security_groups):
            missing = "security_groups" if self.subnets else "subnets"
            given = "subnets" if self.subnets else "security_groups"
            yield Conflict(given, f"define a VPC only together with {missing}", needs=missing)


class ContainerImages(Section):
    """[images]: the container images in Amazon ECR."""

    train: ContainerImage | None = None
    """Container image that trains. Unset: the one that push.sh wrote into images.json."""
    serve: ContainerImage | None = None
    """Container image that serves. Unset: the one that push.sh wrote into images.json."""
    serve_arm64: ContainerImage | None = None
    """Container image that serves on endpoints with Graviton processors. Unset: the one that
    push.sh --platform linux/arm64 wrote into images-arm64.json."""

    def _conflicts(self) -> Iterator[Conflict]:
        for key in ("train", "serve"):
            if (getattr(self, key) or "").endswith("-arm64"):
                yield Conflict(
                    key, "has the tag of push.sh for arm64: only images.serve_arm64 is for arm64"
                )


class Data(Section):
    """[data]: the channels, each a folder of its name, on this machine and on S3."""

    local: str | None = None
    """Folder on this machine with a folder per channel, relative to the settings file."""
    s3: Annotated[str, like(rf"s3://{BUCKET}(/.*)?", "s3://bucket/prefix")] | None = None
    """Prefix on S3 with a folder per channel. Unset: s3://BUCKET/NAME/data."""
    channels: Annotated[
        tuple[Annotated[str, one_of(CHANNELS)], ...], Field(strict=False, min_length=1)
    ] = ("training", "validation")
    """Channels of a training job: folders of `local` and `s3`. `train` is the same as `training`;
    `val` and `valid` are the same as `validation`; `model` is the same as `weights`."""
    mode: Literal["File", "FastFile"] = "File"
    """`FastFile` streams images when they are read, `File` copies all of them first."""

    def _conflicts(self) -> Iterator[Conflict]:
        if not find_channel(TRAINING, self.channels):
            yield Conflict("channels", "must have training")
        for channel, accepted in CHANNEL_NAMES.items():
            given = [name for name in self.channels if name in accepted]
            if len(given) > 1:
                # The training program would read only one of them.
                yield Conflict(
                    "channels",
                    f"name {channel} {len(given)} times, as {', '.join(given)}: keep one",
                )


class Training(Section):
    """[training]: the instances of a training job."""

    instance_type: Annotated[str, instance_for("TrainingInstanceType")] = "ml.g5.xlarge"
    """Instance type of training jobs. `ml.g5.xlarge` has a GPU."""
    instance_count: Count = 1
    """Instances of a training job. Several train one network together."""
    volume_gb: int = Field(default=30, ge=1, le=16_384)
    """Disk of each instance, in GB. It holds the images and their decoded copy."""
    max_hours: float = Field(default=24.0, ge=0.02, le=672)
    """Time limit of a training job, in hours."""
    spot: bool = False
    """Use spot instances, which are cheaper; an interrupted job continues from its checkpoint."""
    max_wait_hours: float | None = None
    """Time limit of a spot job in hours, waiting included. Unset: twice `max_hours`."""
    keep_alive_minutes: int = Field(default=0, ge=0, le=60)
    """Minutes for which the instances stay warm, and cost money, for the next job."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Environment variables of the training program, such as MLFLOW_TRACKING_URI: a table of names
    and values."""

    @property
    def max_wait_seconds(self) -> int:
        """Return the time limit of a spot job."""
        return round((self.max_wait_hours or 2 * self.max_hours) * HOUR)

    def _conflicts(self) -> Iterator[Conflict]:
        if self.max_wait_hours is not None and not self.spot:
            yield Conflict("max_wait_hours", "requires spot = true")
        elif self.max_wait_hours is not None and self.max_wait_hours < self.max_hours:
            yield Conflict("max_wait_hours", f"is less than max_hours, {self.max_hours:g}")
        if self.spot and self.keep_alive_minutes:
            yield Conflict(
                "keep_alive_minutes",
                "is not for spot instances: set it to 0 or spot = false",
                needs="spot",
            )


class Pipeline(Section):
    """[pipeline]: the step of a SageMaker pipeline that prepares the images."""

    source: Annotated[str, like(rf"s3://{BUCKET}/.+", "s3://bucket/images.zip")] | None = None
    """Images as people have them, for `prepare`: an archive on S3, or a folder, which ends with
    `/`. Unset: no step prepares, and training reads the channels of `data`."""
    prepare_options: Strings = ()
    """Options of `prepare`, such as ["--manifest", "labels.csv"]."""
    instance_type: Annotated[str, instance_for("ProcessingInstanceType")] = "ml.m5.xlarge"
    """Instance type of the step. Its disk has `training.volume_gb`."""


class Settings(Section):
    """The whole file."""

    name: Annotated[
        str,
        like(
            rf"(?=.{{1,{MAX_NAME}}}$)[a-z][a-z0-9]*(-[a-z0-9]+)*",
            f"my-job2: up to {MAX_NAME} lowercase letters, digits and single hyphens, "
            "a letter first",
        ),
    ] = ""
    """Prefix of the names of all created resources. The only required key."""
    aws: Aws = Aws()
    images: ContainerImages = ContainerImages()
    data: Data = Data()
    training: Training = Training()
    hyperparameters: dict[str, Scalar] = Field(default_factory=dict)
    """[hyperparameters]: hyperparameters of the training program, which checks their values."""
    metrics: dict[str, str] = Field(default_factory=dict)
    """[metrics]: more metrics of the log, by name: a regular expression with one group, around the
    number. They can be a tuning objective and are shown on SageMaker."""
    tuning: Tuning | None = None
    debugger: Debugger = Debugger()
    profiler: Profiler = Profiler()
    endpoint: Endpoint = Endpoint()
    transform: Transform = Transform()
    explain: Explain = Explain()
    pipeline: Pipeline = Pipeline()

    def _conflicts(self) -> Iterator[Conflict]:
        if not self.name:
            yield Conflict("name", "is missing: it begins the names of all created resources")
        for key in ContainerImages.model_fields:
            uri = re.fullmatch(CONTAINER_IMAGE, getattr(self.images, key) or "")
            if uri and self.aws.region and uri["region"] != self.aws.region:
                regions = f"is in {uri['region']}, and aws.region is {self.aws.region}"
                problem = f"{regions}: SageMaker pulls only from its own region"
                yield Conflict(f"images.{key}", problem, needs="aws.region")
        has_vpc = bool(self.aws.subnets)
        if self.endpoint.kind == "serverless" and (has_vpc or self.aws.network_isolation):
            yield Conflict(
                "endpoint.kind", "serverless supports neither a VPC nor network isolation"
            )
        if self.debugger.rules and "debug_rules" in self.hyperparameters:
            yield Conflict(
                "hyperparameters.debug_rules", "replaces debugger.rules: keep one of them"
            )
        minutes = self.hyperparameters.get("max_minutes")
        if isinstance(minutes, int | float) and minutes > 60 * self.training.max_hours:
            problem = f"is more than training.max_hours, {self.training.max_hours:g}"
            remedy = "SageMaker would stop the job before its end"
            yield Conflict(
                "hyperparameters.max_minutes", f"{problem}: {remedy}", needs="training.max_hours"
            )
        if minutes is not None and self.tuning and self.tuning.strategy == "Hyperband":
            problem = "leaves the number of epochs open, by which Hyperband compares trials"
            yield Conflict(
                "hyperparameters.max_minutes", f"{problem}: set epochs", needs="tuning.strategy"
            )
        if self.aws.network_isolation and self.downloads_weights():
            problem = "network_isolation prevents the download of pretrained weights"
            remedy = "add the channel weights to data.channels"
            yield Conflict("aws.network_isolation", f"{problem}: {remedy}", needs="data.channels")

    def downloads_weights(self) -> bool:
        """Return whether training downloads pretrained weights."""
        given = self.hyperparameters
        # As the training program decides it.
        is_pretrained = given.get("pretrained", given.get("network", "resnet18") != "small")
        return bool(is_pretrained) and not find_channel(WEIGHTS, self.data.channels)

    @property
    def image_size(self) -> int:
        """Return height and width of decoded images in pixels, the largest if they are tuned."""
        ranges = {} if self.tuning is None else self.tuning.ranges
        tuned = {name: limits.values or limits.bounds for name, limits in ranges.items()}
        given = {name: (value,) for name, value in self.hyperparameters.items()} | tuned
        # As the training program decides it.
        is_small = set(given.get("network", ())) == {"small"}
        return max(
            int(float(str(size))) for size in given.get("image_size", (128 if is_small else 224,))
        )

    def job_hyperparameters(self) -> dict[str, str]:
        """Return the hyperparameters of a training job: the file's, and its debugger rules."""
        rules = self.debugger.selection()
        return to_strings({**({"debug_rules": rules} if rules else {}), **self.hyperparameters})

    @property
    def serve_image(self) -> str | None:
        """Return the container image for the processors of the endpoint."""
        images = self.images
        return images.serve_arm64 if self.endpoint.is_arm64 else images.serve

    @property
    def output(self) -> str:
        """Return the S3 prefix of everything that jobs and endpoints write."""
        return f"s3://{self.aws.bucket}/{self.name}/output"

    @property
    def channels_uri(self) -> str:
        """Return the S3 prefix of the channels."""
        return (self.data.s3 or f"s3://{self.aws.bucket}/{self.name}/data").rstrip("/")
