"""The folder of SageMaker's files in a container."""

import os
from pathlib import Path

from container.classifier.vocabulary import BASE_DIR_VARIABLE


def base_dir() -> Path:
    """Return the folder that SageMaker mounts, `/opt/ml`.

    SAGEMAKER_BASE_DIR overrides it, as in AWS's toolkits.
    """
    return Path(os.environ.get(BASE_DIR_VARIABLE, "/opt/ml"))
