"""Environment variables that several programs read or set."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from container.classifier.errors import UserError

# SageMaker or the local platform sets the first six.
JOB_NAME_VARIABLE = "TRAINING_JOB_NAME"
BASE_DIR_VARIABLE = "SAGEMAKER_BASE_DIR"
PORT_VARIABLE = "SAGEMAKER_BIND_TO_PORT"
MULTI_MODEL_VARIABLE = "SAGEMAKER_MULTI_MODEL"
BATCH_VARIABLE = "SAGEMAKER_BATCH"
PAYLOAD_VARIABLE = "SAGEMAKER_MAX_PAYLOAD_IN_MB"
CACHE_DIR_VARIABLE = "SAGEMAKER_CLASSIFIER_CACHE_DIR"
ERROR_RECORDS_VARIABLE = "SAGEMAKER_CLASSIFIER_ERROR_RECORDS"
PAGE_VARIABLE = "SAGEMAKER_CLASSIFIER_PAGE"
IMAGE_MEMORY_VARIABLE = "SAGEMAKER_CLASSIFIER_IMAGE_MB"
PROCESSES_VARIABLE = "SAGEMAKER_CLASSIFIER_PROCESSES"
LIVE_VARIABLE = "SAGEMAKER_CLASSIFIER_LIVE"
TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"

Number = TypeVar("Number", int, float)

# Values of on/off variables, in any case.
ON, OFF = ("true", "1", "yes", "on"), ("false", "0", "no", "off")

# Memory for decoding an image: 0.8 GB fit into a serverless endpoint of 1 GB.
MB, MIN_IMAGE_MB, IMAGE_MB, MAX_IMAGE_MB = 10**6, 10, 800, 100_000


def base_dir() -> Path:
    """Return the folder of SageMaker's files in a container; BASE_DIR_VARIABLE overrides it."""
    return Path(os.environ.get(BASE_DIR_VARIABLE, "/opt/ml"))


def cache_dir() -> Path:
    """Return the folder of decoded images; by default one of this user in the temporary folder."""
    default = f"{tempfile.gettempdir()}/image-classifier-{os.geteuid()}"
    return Path(os.environ.get(CACHE_DIR_VARIABLE) or default)


def is_on(text: str) -> bool | None:
    """Return the value of an on/off variable; empty means off, and None an unknown value."""
    return {**dict.fromkeys(OFF, False), **dict.fromkeys(ON, True), "": False}.get(text.lower())


def number(
    environment: Mapping[str, str], name: str, default: Number, lowest: int, highest: int
) -> Number:
    """Return the value of a variable, a number of the default's type; empty means the default.

    Raises:
        UserError: it is not such a number, or out of range.
    """
    text = environment.get(name) or str(default)
    try:
        value = type(default)(text)
    except ValueError:
        value = type(default)(lowest - 1)
    if not lowest <= value <= highest:
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise UserError(f"{name} must be {kind} from {lowest} to {highest}, got {text!r}")
    return value


def image_bytes() -> int:
    """Return the memory that decoding one image may take.

    Raises:
        UserError: IMAGE_MEMORY_VARIABLE is invalid.
    """
    name = IMAGE_MEMORY_VARIABLE
    return MB * number(os.environ, name, IMAGE_MB, MIN_IMAGE_MB, MAX_IMAGE_MB)
