"""The settings of the recorded requests: every key that the SDKs know too."""

from pathlib import Path

from image_classifier.settings.schema import Settings
from tests.settings_files import BEGINNING, TUNING
from tests.settings_files import read as read_file

ROLE = "arn:aws:iam::111122223333:role/image-classifier"
ARTIFACT, IMAGES = "s3://my-bucket/model.tar.gz", "s3://my-bucket/images/"
ANSWERS = "s3://my-bucket/hands/output/hands-1"

OPERATIONS = (
    "CreateTrainingJob",
    "CreateHyperParameterTuningJob",
    "CreateModel",
    "CreateEndpointConfig",
    "CreateTransformJob",
)

_AWS = """
subnets = ["subnet-1"]
security_groups = ["sg-1"]
kms_key = "1234abcd"
encrypt_traffic = true
tags = { team = "vision" }
"""

_REST = """
[training]
spot = true
# Without local storage, whose disks SageMaker encrypts without the key.
instance_type = "ml.m5.xlarge"

[hyperparameters]
network = "small"
epochs = 3

[endpoint]
environment = { SAGEMAKER_MODEL_SERVER_WORKERS = "1" }
"""


def read(folder: Path) -> Settings:
    """Return the settings; their file is written to `folder`."""
    beginning = BEGINNING.replace("[images]", f"{_AWS}[images]")
    return read_file(folder, TUNING + _REST, beginning).settings
