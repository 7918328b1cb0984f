"""Settings of the server, read from environment variables.

Variables that AWS's toolkits also have keep AWS's names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from container.classifier.environment import (
    BATCH_VARIABLE,
    ERROR_RECORDS_VARIABLE,
    IMAGE_MB,
    IMAGE_MEMORY_VARIABLE,
    MAX_IMAGE_MB,
    MB,
    MIN_IMAGE_MB,
    MULTI_MODEL_VARIABLE,
    OFF,
    ON,
    PAGE_VARIABLE,
    PAYLOAD_VARIABLE,
    PORT_VARIABLE,
    Number,
    is_on,
    number,
)
from container.classifier.errors import UserError
from container.classifier.manifest import FLOAT32, INT8
from container.classifier.media_types import JSON, RESPONSE_MEDIA_TYPES

MIB = 2**20

# The largest bodies that SageMaker sends: online, in a batch transform, asynchronously.
ONLINE_PAYLOAD_MB, BATCH_PAYLOAD_MB, ASYNC_PAYLOAD_MB = 25, 100, 1024

# A transform job's default, and the limit of its payload times its concurrency.
DEFAULT_TRANSFORM_PAYLOAD_MB, TRANSFORM_MB = 6, 100

# Online, large networks too stay within SageMaker's 60 seconds. In a transform job the payload is
# the limit.
ONLINE_IMAGES, BATCH_IMAGES = 64, 100_000

BFLOAT16 = "bfloat16"
PRECISIONS = (FLOAT32, BFLOAT16, INT8)

ENGINE = "SAGEMAKER_CLASSIFIER_ENGINE"
OPENVINO, TORCH = "openvino", "torch"

# A request that would wait longer is rejected.
WAIT_SECONDS = 2

MAX_SECONDS = 3600

MAX_BATCH_SIZE = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Settings of the server. 0 and "" mean that the server chooses."""

    port: int = 8080
    """SAGEMAKER_BIND_TO_PORT: TCP port. Default: 8080. Pipelines and multi-container endpoints set
    it."""

    multi_model: bool = False
    """SAGEMAKER_MULTI_MODEL: `true` on a multi-model endpoint, where the platform loads and unloads
    models. The server then has one worker process."""

    workers: int = 0
    """SAGEMAKER_MODEL_SERVER_WORKERS: Worker processes, each with a separate copy of the
    network."""

    engine: str = ""
    """SAGEMAKER_CLASSIFIER_ENGINE: `openvino`, or `torch` in the GPU container image. Default:
    `torch` if that container image finds a GPU."""

    max_batch_size: int = 32
    """SAGEMAKER_CLASSIFIER_MAX_BATCH_SIZE: Images per batch (`torch` only). Default: 32."""

    batch_timeout_seconds: float = 0.005
    """SAGEMAKER_CLASSIFIER_BATCH_TIMEOUT_SECONDS: How long images wait for a full batch while the
    GPU is idle (`torch` only). Default: 0.005. The only image in the server does not wait."""

    streams: int = 0
    """SAGEMAKER_CLASSIFIER_STREAMS: Images predicted at the same time, each on one core."""

    latency_threads: int = 0
    """SAGEMAKER_CLASSIFIER_LATENCY_THREADS: Cores that predict the only image in the server. 1
    saves the memory of a second compiled network."""

    threads: int = 0
    """SAGEMAKER_CLASSIFIER_THREADS: Requests in flight: their bodies are read or in memory."""

    queue: int = 0
    """SAGEMAKER_CLASSIFIER_QUEUE: Requests that wait for a slot before their bodies are read."""

    wait_seconds: int = WAIT_SECONDS
    """SAGEMAKER_CLASSIFIER_WAIT_SECONDS: How long a request may wait before its first image is
    decoded, three quarters of that unread. Then it is rejected. Default: 2; in a transform job, the
    timeout."""

    precision: str = ""
    """SAGEMAKER_CLASSIFIER_PRECISION: `float32`, `bfloat16`, or `int8` if the artifact has it.
    Default: the fastest, which the server measures at its start. The server falls back to float32
    if another precision does not reproduce the golden answers."""

    timeout_seconds: int = 60
    """SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS: Time limit for reading a request's body, and for
    predicting its images. A worker that hangs for 30 seconds more is replaced. Default: 60; in a
    transform job, 3600. SAGEMAKER_MODEL_SERVER_TIMEOUT means the same."""

    max_body_bytes: int = ONLINE_PAYLOAD_MB * MIB
    """SAGEMAKER_MAX_PAYLOAD_IN_MB: Largest body. Default: 25 MB; in a transform job, 100 MB."""

    image_mb: int = IMAGE_MB
    """SAGEMAKER_CLASSIFIER_IMAGE_MB: Memory in MB that decoding one image may take. Larger images
    are rejected. Default: 800, which is enough for 50 megapixels in any format. A JPEG is decoded
    at a half, a quarter or an eighth of its size if that is enough for the network, so it may have
    more pixels. Training and `prepare` read this variable too."""

    max_images: int = ONLINE_IMAGES
    """Images per request."""

    transform_payload_mb: int = DEFAULT_TRANSFORM_PAYLOAD_MB
    """MaxPayloadInMB in the response of /execution-parameters."""

    has_execution_parameters: bool = True
    """False if SAGEMAKER_BATCH is `True`, as the SDK's Local Mode sets it: that code fails on the
    documented spelling of the batch strategy, but accepts a 404."""

    default_accept: str = JSON
    """SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT: Media type of the response if the request accepts
    several. Default: `application/json`, or JSON Lines for a request in JSON Lines."""

    has_error_records: bool = False
    """SAGEMAKER_CLASSIFIER_ERROR_RECORDS: `true` to answer 200, with errors instead of predictions,
    even if no image of a request can be read. Without it, one such object fails a transform job."""

    has_metrics: bool = False
    """SAGEMAKER_CLASSIFIER_METRICS: `true` for Prometheus metrics on `/metrics`."""

    has_page: bool = False
    """SAGEMAKER_CLASSIFIER_PAGE: `true` for a web page on `/` that classifies an image. The page
    shows the class names and the artifact's golden images to everyone who can connect. `make up`
    sets it."""

    log_level: int = 20
    """SAGEMAKER_CONTAINER_LOG_LEVEL: Level of Python's `logging`. Default: 20. 30 hides the request
    log and the start-up messages."""

    @property
    def image_bytes(self) -> int:
        """Memory that decoding one image may take."""
        return self.image_mb * MB

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the environment variables.

        Raises:
            UserError: A variable has an invalid value.
        """
        read, default = _Variables(environment), cls()
        batch = environment.get(BATCH_VARIABLE, "")
        is_batch = batch.lower() == "true"
        payload_mb = read.number(PAYLOAD_VARIABLE, 0, 0, ASYNC_PAYLOAD_MB)
        timeout = 3600 if is_batch else 60
        for name in ("SAGEMAKER_MODEL_SERVER_TIMEOUT", "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS"):
            timeout = read.number(name, timeout, 1, MAX_SECONDS)
        default_mb = BATCH_PAYLOAD_MB if is_batch else ONLINE_PAYLOAD_MB
        wait = timeout if is_batch else WAIT_SECONDS
        own = "SAGEMAKER_CLASSIFIER_"
        return cls(
            port=read.number(PORT_VARIABLE, default.port, 1, 65535),
            multi_model=read.flag(MULTI_MODEL_VARIABLE),
            workers=read.number("SAGEMAKER_MODEL_SERVER_WORKERS", 0, 0, 256),
            engine=read.choice(ENGINE, "", (OPENVINO, TORCH)),
            max_batch_size=read.number(
                f"{own}MAX_BATCH_SIZE", default.max_batch_size, 1, MAX_BATCH_SIZE
            ),
            batch_timeout_seconds=read.number(
                f"{own}BATCH_TIMEOUT_SECONDS", default.batch_timeout_seconds, 0, WAIT_SECONDS
            ),
            streams=read.number(f"{own}STREAMS", 0, 0, 256),
            latency_threads=read.number(f"{own}LATENCY_THREADS", 0, 0, 256),
            threads=read.number(f"{own}THREADS", 0, 0, 4096),
            queue=read.number(f"{own}QUEUE", 0, 0, 65536),
            wait_seconds=read.number(f"{own}WAIT_SECONDS", wait, 1, MAX_SECONDS),
            timeout_seconds=timeout,
            # SageMaker sets 0 for a chunked body of any length.
            max_body_bytes=MIB * (payload_mb or default_mb),
            image_mb=read.number(IMAGE_MEMORY_VARIABLE, IMAGE_MB, MIN_IMAGE_MB, MAX_IMAGE_MB),
            max_images=BATCH_IMAGES if is_batch else ONLINE_IMAGES,
            transform_payload_mb=min(payload_mb or DEFAULT_TRANSFORM_PAYLOAD_MB, BATCH_PAYLOAD_MB),
            has_execution_parameters=batch != "True",
            default_accept=read.choice(
                "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", JSON, RESPONSE_MEDIA_TYPES
            ),
            precision=read.choice(f"{own}PRECISION", "", PRECISIONS),
            has_error_records=read.flag(ERROR_RECORDS_VARIABLE),
            has_metrics=read.flag(f"{own}METRICS"),
            has_page=read.flag(PAGE_VARIABLE),
            log_level=read.number("SAGEMAKER_CONTAINER_LOG_LEVEL", default.log_level, 0, 50),
        )


@dataclass(frozen=True, slots=True)
class _Variables:
    """Environment variables with checks of their values; an empty one counts as unset."""

    environment: Mapping[str, str]

    def choice(self, name: str, default: str, values: Sequence[str]) -> str:
        value = self.environment.get(name)
        if value and value not in values:
            raise UserError(f"{name} must be one of {', '.join(values)}, got {value!r}")
        return value or default

    def flag(self, name: str) -> bool:
        text = self.environment.get(name, "")
        value = is_on(text)
        if value is None:
            raise UserError(f"{name} must be one of {', '.join((*ON, *OFF))}, got {text!r}")
        return value

    def number(self, name: str, default: Number, lowest: int, highest: int) -> Number:
        return number(self.environment, name, default, lowest, highest)
