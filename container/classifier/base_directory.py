"""Where SageMaker mounts a container's files."""

import os
from pathlib import Path

from container.classifier.vocabulary import BASE_DIR_VARIABLE


def base_dir() -> Path:
    """Return the folder that SageMaker mounts, `/opt/ml`.

    SAGEMAKER_BASE_DIR moves it, as in AWS's own toolkits.
    """
    return Path(os.environ.get(BASE_DIR_VARIABLE, "/opt/ml"))
