"""Names that several programs share: channels, splits, media types, environment variables.

What one program writes, another one reads by the name that is defined here. Imports the standard
library only.
"""

import os
from collections.abc import Collection, Mapping
from pathlib import Path

TRAINING, VALIDATION, TEST, WEIGHTS = "training", "validation", "test", "weights"

# The channels of a training job with their accepted names, the preferred one first.
CHANNEL_NAMES: Mapping[str, tuple[str, ...]] = {
    TRAINING: ("training", "train"),
    VALIDATION: ("validation", "val", "valid"),
    TEST: ("test",),
    WEIGHTS: ("weights", "model"),
}

# The folders of a prepared data set, each of which can be a channel.
SPLITS = ("train", "validation", "test")

# The images that are accepted, by the suffix of their files.
IMAGE_MEDIA_TYPES: Mapping[str, str] = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".bmp": "image/bmp",
}
IMAGE_SUFFIXES = frozenset(IMAGE_MEDIA_TYPES)

ANY_IMAGE, NPY = "application/x-image", "application/x-npy"
JSON, JSON_LINES, CSV = "application/json", "application/jsonlines", "text/csv"

# Of responses, in the server's order of preference.
RESPONSE_MEDIA_TYPES = (JSON, JSON_LINES, CSV)

# Environment variables. SageMaker or the local platform sets the first four.
JOB_NAME_VARIABLE = "TRAINING_JOB_NAME"
BASE_DIR_VARIABLE = "SAGEMAKER_BASE_DIR"
PORT_VARIABLE = "SAGEMAKER_BIND_TO_PORT"
MULTI_MODEL_VARIABLE = "SAGEMAKER_MULTI_MODEL"
CACHE_DIR_VARIABLE = "SAGEMAKER_CLASSIFIER_CACHE_DIR"
ERROR_RECORDS_VARIABLE = "SAGEMAKER_CLASSIFIER_ERROR_RECORDS"
PAGE_VARIABLE = "SAGEMAKER_CLASSIFIER_PAGE"
PROCESSES_VARIABLE = "SAGEMAKER_CLASSIFIER_PROCESSES"


def find_channel(channel: str, names: Collection[str]) -> str | None:
    """Return the first of a channel's accepted names that is in `names`, if any is."""
    return next((name for name in CHANNEL_NAMES[channel] if name in names), None)


def base_dir() -> Path:
    """Return the folder of SageMaker's files in a container; BASE_DIR_VARIABLE overrides it."""
    return Path(os.environ.get(BASE_DIR_VARIABLE, "/opt/ml"))
