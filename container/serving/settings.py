"""What the platform and a person set through environment variables.

The names are those of AWS's own toolkits where these have one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from classifier.errors import UserError
from serving.encoding import MEDIA_TYPES

MIB = 2**20

# The most that SageMaker sends: online, in a batch transform, asynchronously.
ONLINE_PAYLOAD_MB, BATCH_PAYLOAD_MB, ASYNC_PAYLOAD_MB = 25, 100, 1024

# A transform job's own default, and the limit of its payload times its concurrency.
DEFAULT_TRANSFORM_PAYLOAD_MB, TRANSFORM_MB = 6, 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How to serve."""

    port: int = 8080
    """SAGEMAKER_BIND_TO_PORT: 8080 unless a pipeline or a multi-container endpoint sets it."""

    workers: int = 1
    """SAGEMAKER_MODEL_SERVER_WORKERS: processes, 1 unless set; each has its own network."""

    timeout_seconds: int = 60
    """SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS: a worker that hangs so long is replaced; 60 unless
    set, an hour in a transform job. SAGEMAKER_MODEL_SERVER_TIMEOUT means the same."""

    max_body_bytes: int = ONLINE_PAYLOAD_MB * MIB
    """SAGEMAKER_MAX_PAYLOAD_IN_MB: largest body; 25 MB unless set, 100 MB in a transform job."""

    transform_payload_mb: int = DEFAULT_TRANSFORM_PAYLOAD_MB
    """What /execution-parameters advises."""

    has_execution_parameters: bool = True
    """False where SAGEMAKER_BATCH is `True`, the SDK's Local Mode: its code fails on the
    documented spelling of the batch strategy, while it takes a 404."""

    default_accept: str = "application/json"
    """SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT: the answer's type where a request leaves it open."""

    log_level: int = 20
    """SAGEMAKER_CONTAINER_LOG_LEVEL: as Python counts, 20 unless set; 30 hides request lines."""

    max_requests: int = 100
    """Requests at work and waiting, in one worker; one more is refused. A transform job sends at
    most 100 at once."""

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
            environment, "SAGEMAKER_MODEL_SERVER_TIMEOUT", 3600 if is_batch else 60, 1, 3600
        )
        accept = environment.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT") or defaults.default_accept
        if accept not in MEDIA_TYPES:
            message = (
                "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT must be one of "
                f"{', '.join(MEDIA_TYPES)}, got {accept!r}"
            )
            raise UserError(message)
        return cls(
            port=_integer(environment, "SAGEMAKER_BIND_TO_PORT", defaults.port, 1, 65535),
            workers=_integer(
                environment, "SAGEMAKER_MODEL_SERVER_WORKERS", defaults.workers, 1, 256
            ),
            timeout_seconds=_integer(
                environment, "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS", timeout, 1, 3600
            ),
            # 0 is SageMaker's word for a chunked body of any length.
            max_body_bytes=MIB
            * (payload_mb or (BATCH_PAYLOAD_MB if is_batch else ONLINE_PAYLOAD_MB)),
            transform_payload_mb=min(payload_mb or defaults.transform_payload_mb, BATCH_PAYLOAD_MB),
            has_execution_parameters=batch != "True",
            default_accept=accept,
            log_level=_integer(
                environment, "SAGEMAKER_CONTAINER_LOG_LEVEL", defaults.log_level, 0, 50
            ),
        )


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
