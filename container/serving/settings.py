"""What the platform and a person set through environment variables.

The names are those of AWS's own toolkits where these have one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from container.classifier.errors import UserError
from container.classifier.vocabulary import (
    ERROR_RECORDS_VARIABLE,
    JSON,
    MULTI_MODEL_VARIABLE,
    PAGE_VARIABLE,
    PORT_VARIABLE,
    RESPONSE_MEDIA_TYPES,
)

MIB = 2**20

# The most that SageMaker sends: online, in a batch transform, asynchronously.
ONLINE_PAYLOAD_MB, BATCH_PAYLOAD_MB, ASYNC_PAYLOAD_MB = 25, 100, 1024

# A transform job's own default, and the limit of its payload times its concurrency.
DEFAULT_TRANSFORM_PAYLOAD_MB, TRANSFORM_MB = 6, 100

# Within SageMaker's 60 seconds, large networks too; in a transform job the payload is the limit.
ONLINE_IMAGES, BATCH_IMAGES = 64, 100_000

FLOAT32, BFLOAT16, INT8 = "float32", "bfloat16", "int8"
PRECISIONS = (FLOAT32, BFLOAT16, INT8)

ENGINE = "SAGEMAKER_CLASSIFIER_ENGINE"
OPENVINO, TORCH = "openvino", "torch"

# A request that would wait longer is rejected.
WAIT_SECONDS = 2

OVERLOADED_MESSAGE = "more requests than this server takes are waiting: try again"
RETRY_AFTER_SECONDS = 1

MAX_SECONDS = 3600

MAX_BATCH_SIZE = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How to serve."""

    port: int = 8080
    """SAGEMAKER_BIND_TO_PORT: 8080 unless a pipeline or a multi-container endpoint sets it."""

    multi_model: bool = False
    """SAGEMAKER_MULTI_MODEL: `true` on a multi-model endpoint, where the platform loads and unloads
    models; one process, whatever the next variable says."""

    workers: int = 0
    """SAGEMAKER_MODEL_SERVER_WORKERS: processes, each with its own network."""

    engine: str = ""
    """SAGEMAKER_CLASSIFIER_ENGINE: `openvino`, or `torch` in the GPU image; unset, `torch` if
    that container image finds a GPU."""

    max_batch_size: int = 32
    """SAGEMAKER_CLASSIFIER_MAX_BATCH_SIZE: of `torch`: images that are predicted together; 32
    unless set."""

    batch_timeout_seconds: float = 0.005
    """SAGEMAKER_CLASSIFIER_BATCH_TIMEOUT_SECONDS: of `torch`: how long images wait for others
    while the GPU is idle; 0.005 unless set. An image that is alone in the server does not wait."""

    streams: int = 0
    """SAGEMAKER_CLASSIFIER_STREAMS: images predicted at a time, each on one core."""

    latency_threads: int = 0
    """SAGEMAKER_CLASSIFIER_LONE_THREADS: cores for the image of a lone request; 1 saves the
    second compiled network."""

    threads: int = 0
    """SAGEMAKER_CLASSIFIER_THREADS: requests that are read at a time or wait in memory."""

    queue: int = 0
    """SAGEMAKER_CLASSIFIER_QUEUE: requests that wait unread on their connections."""

    wait_seconds: int = WAIT_SECONDS
    """SAGEMAKER_CLASSIFIER_WAIT_SECONDS: how long a request may wait before its images' turn,
    three quarters of that unread; then it is refused. 2 unless set, in a transform job as long as
    the timeout."""

    precision: str = ""
    """SAGEMAKER_CLASSIFIER_PRECISION: `float32`, `bfloat16`, or `int8` of an artifact that has it;
    unset, the fastest that the processor computes in. float32 serves where the golden answers are
    not reproduced otherwise."""

    timeout_seconds: int = 60
    """SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS: how long a request's body may take to come, and its
    images to be predicted; a worker that hangs for 30 more is replaced. 60 unless set, an hour in
    a transform job. SAGEMAKER_MODEL_SERVER_TIMEOUT means the same."""

    max_body_bytes: int = ONLINE_PAYLOAD_MB * MIB
    """SAGEMAKER_MAX_PAYLOAD_IN_MB: largest body; 25 MB unless set, 100 MB in a transform job."""

    max_images: int = ONLINE_IMAGES
    """Of a request."""

    transform_payload_mb: int = DEFAULT_TRANSFORM_PAYLOAD_MB
    """What /execution-parameters advises."""

    has_execution_parameters: bool = True
    """False where SAGEMAKER_BATCH is `True`, the SDK's Local Mode: its code fails on the
    documented spelling of the batch strategy, while it takes a 404."""

    default_accept: str = JSON
    """SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT: the answer's type where a request leaves it open.
    `application/json` unless set; with that, a request in JSON Lines is answered in JSON Lines."""

    has_error_records: bool = False
    """SAGEMAKER_CLASSIFIER_ERROR_RECORDS: `true` to answer 200, with the error in the prediction's
    place, even where none of a request's images can be read. In a transform job one such object
    would fail the whole job."""

    has_metrics: bool = False
    """SAGEMAKER_CLASSIFIER_METRICS: `true` for numbers on `/metrics`, as Prometheus reads them."""

    has_page: bool = False
    """SAGEMAKER_CLASSIFIER_PAGE: `true` for a page on `/` that takes an image and shows its
    classes; `make up` sets it."""

    log_level: int = 20
    """SAGEMAKER_CONTAINER_LOG_LEVEL: as Python counts, 20 unless set; 30 hides the lines
    of requests and of the start."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the environment variables.

        Raises:
            UserError: a value is not what its variable takes.
        """
        defaults = cls()
        batch = environment.get("SAGEMAKER_BATCH", "")
        is_batch = batch.lower() == "true"
        payload_mb = _integer(environment, "SAGEMAKER_MAX_PAYLOAD_IN_MB", 0, 0, ASYNC_PAYLOAD_MB)
        timeout = _integer(
            environment, "SAGEMAKER_MODEL_SERVER_TIMEOUT", 3600 if is_batch else 60, 1, MAX_SECONDS
        )
        timeout = _integer(
            environment, "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS", timeout, 1, MAX_SECONDS
        )
        return cls(
            port=_integer(environment, PORT_VARIABLE, defaults.port, 1, 65535),
            multi_model=environment.get(MULTI_MODEL_VARIABLE, "").lower() == "true",
            workers=_integer(environment, "SAGEMAKER_MODEL_SERVER_WORKERS", 0, 0, 256),
            engine=_one_of(environment, ENGINE, defaults.engine, (OPENVINO, TORCH)),
            max_batch_size=_integer(
                environment,
                "SAGEMAKER_CLASSIFIER_MAX_BATCH_SIZE",
                defaults.max_batch_size,
                1,
                MAX_BATCH_SIZE,
            ),
            batch_timeout_seconds=_seconds(
                environment,
                "SAGEMAKER_CLASSIFIER_BATCH_TIMEOUT_SECONDS",
                defaults.batch_timeout_seconds,
            ),
            streams=_integer(environment, "SAGEMAKER_CLASSIFIER_STREAMS", 0, 0, 256),
            latency_threads=_integer(environment, "SAGEMAKER_CLASSIFIER_LONE_THREADS", 0, 0, 256),
            threads=_integer(environment, "SAGEMAKER_CLASSIFIER_THREADS", 0, 0, 4096),
            queue=_integer(environment, "SAGEMAKER_CLASSIFIER_QUEUE", 0, 0, 65536),
            wait_seconds=_integer(
                environment,
                "SAGEMAKER_CLASSIFIER_WAIT_SECONDS",
                timeout if is_batch else WAIT_SECONDS,
                1,
                MAX_SECONDS,
            ),
            timeout_seconds=timeout,
            # 0 is SageMaker's word for a chunked body of any length.
            max_body_bytes=MIB
            * (payload_mb or (BATCH_PAYLOAD_MB if is_batch else ONLINE_PAYLOAD_MB)),
            max_images=BATCH_IMAGES if is_batch else ONLINE_IMAGES,
            transform_payload_mb=min(payload_mb or defaults.transform_payload_mb, BATCH_PAYLOAD_MB),
            has_execution_parameters=batch != "True",
            default_accept=_one_of(
                environment,
                "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT",
                defaults.default_accept,
                RESPONSE_MEDIA_TYPES,
            ),
            precision=_one_of(
                environment, "SAGEMAKER_CLASSIFIER_PRECISION", defaults.precision, PRECISIONS
            ),
            has_error_records=_is_on(environment, ERROR_RECORDS_VARIABLE),
            has_metrics=_is_on(environment, "SAGEMAKER_CLASSIFIER_METRICS"),
            has_page=_is_on(environment, PAGE_VARIABLE),
            log_level=_integer(
                environment, "SAGEMAKER_CONTAINER_LOG_LEVEL", defaults.log_level, 0, 50
            ),
        )


def _one_of(environment: Mapping[str, str], name: str, default: str, values: Sequence[str]) -> str:
    value = environment.get(name)
    if value and value not in values:
        message = f"{name} must be one of {', '.join(values)}, got {value!r}"
        raise UserError(message)
    return value or default


def _is_on(environment: Mapping[str, str], name: str) -> bool:
    return _one_of(environment, name, "false", ("true", "false")) == "true"


def _integer(
    environment: Mapping[str, str], name: str, default: int, lowest: int, highest: int
) -> int:
    text = environment.get(name) or str(default)
    try:
        value = int(text)
    except ValueError:
        value = lowest - 1
    if not lowest <= value <= highest:
        message = f"{name} must be a whole number from {lowest} to {highest}, got {text!r}"
        raise UserError(message)
    return value


def _seconds(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= WAIT_SECONDS:
        message = f"{name} must be a number from 0 to {WAIT_SECONDS}, got {text!r}"
        raise UserError(message)
    return value
