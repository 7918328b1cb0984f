"""Environment variables that several programs read or set."""

import os
from pathlib import Path

# SageMaker or the local platform sets the first four.
JOB_NAME_VARIABLE = "TRAINING_JOB_NAME"
BASE_DIR_VARIABLE = "SAGEMAKER_BASE_DIR"
PORT_VARIABLE = "SAGEMAKER_BIND_TO_PORT"
MULTI_MODEL_VARIABLE = "SAGEMAKER_MULTI_MODEL"
CACHE_DIR_VARIABLE = "SAGEMAKER_CLASSIFIER_CACHE_DIR"
ERROR_RECORDS_VARIABLE = "SAGEMAKER_CLASSIFIER_ERROR_RECORDS"
PAGE_VARIABLE = "SAGEMAKER_CLASSIFIER_PAGE"
PROCESSES_VARIABLE = "SAGEMAKER_CLASSIFIER_PROCESSES"


def base_dir() -> Path:
    """Return the folder of SageMaker's files in a container; BASE_DIR_VARIABLE overrides it."""
    return Path(os.environ.get(BASE_DIR_VARIABLE, "/opt/ml"))
