"""Environment variables that several programs read or set."""

import os
from pathlib import Path

from container.classifier.errors import UserError

# SageMaker or the local platform sets the first four.
JOB_NAME_VARIABLE = "TRAINING_JOB_NAME"
BASE_DIR_VARIABLE = "SAGEMAKER_BASE_DIR"
PORT_VARIABLE = "SAGEMAKER_BIND_TO_PORT"
MULTI_MODEL_VARIABLE = "SAGEMAKER_MULTI_MODEL"
CACHE_DIR_VARIABLE = "SAGEMAKER_CLASSIFIER_CACHE_DIR"
ERROR_RECORDS_VARIABLE = "SAGEMAKER_CLASSIFIER_ERROR_RECORDS"
PAGE_VARIABLE = "SAGEMAKER_CLASSIFIER_PAGE"
IMAGE_MEMORY_VARIABLE = "SAGEMAKER_CLASSIFIER_IMAGE_MB"
PROCESSES_VARIABLE = "SAGEMAKER_CLASSIFIER_PROCESSES"
LIVE_VARIABLE = "SAGEMAKER_CLASSIFIER_LIVE"
TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"

# Values of on/off variables, in any case.
ON, OFF = ("true", "1", "yes", "on"), ("false", "0", "no", "off")

# Of a decoded image: 0.8 GB fit into a serverless endpoint of 1 GB.
MB, MIN_IMAGE_MB, IMAGE_MB, MAX_IMAGE_MB = 10**6, 10, 800, 100_000


def base_dir() -> Path:
    """Return the folder of SageMaker's files in a container; BASE_DIR_VARIABLE overrides it."""
    return Path(os.environ.get(BASE_DIR_VARIABLE, "/opt/ml"))


def is_on(text: str) -> bool | None:
    """Return the value of an on/off variable; empty means off, and None an unknown value."""
    return {**dict.fromkeys(OFF, False), **dict.fromkeys(ON, True), "": False}.get(text.lower())


def image_bytes() -> int:
    """Return the memory that decoding one image may take.

    Raises:
        UserError: IMAGE_MEMORY_VARIABLE is invalid.
    """
    text = os.environ.get(IMAGE_MEMORY_VARIABLE) or str(IMAGE_MB)
    if not (text.isdecimal() and MIN_IMAGE_MB <= int(text) <= MAX_IMAGE_MB):
        raise UserError(
            f"{IMAGE_MEMORY_VARIABLE} must be a whole number from {MIN_IMAGE_MB} to "
            f"{MAX_IMAGE_MB}, got {text!r}"
        )
    return int(text) * MB
