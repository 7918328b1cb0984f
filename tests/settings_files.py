"""A settings file for tests of `image_classifier`."""

from pathlib import Path

from image_classifier.settings import settings_file
from image_classifier.settings.settings_file import SettingsFile

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

ACCOUNT = "111122223333"
REGISTRY = f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com"

BEGINNING = f"""\
name = "hands"

[aws]
role = "arn:aws:iam::{ACCOUNT}:role/image-classifier"
region = "eu-west-1"
bucket = "my-bucket"

[images]
train = "{REGISTRY}/image-classifier-train:abc"
serve = "{REGISTRY}/image-classifier-serve@sha256:{"a" * 64}"
"""

TUNING = """
[tuning]
objective = "val_loss"
jobs = 4

[tuning.ranges]
learning_rate = { min = 0.001, max = 0.01, scaling = "Logarithmic" }
batch_size = { values = [32, 64, 128] }
epochs = { min = 2, max = 5 }
"""


def write(directory: Path, rest: str = "", beginning: str = BEGINNING) -> Path:
    """Write a settings file of the account's part and `rest`."""
    path = directory / "settings.toml"
    path.write_text(beginning + rest, encoding="utf-8")
    return path


def read(directory: Path, rest: str = "", beginning: str = BEGINNING) -> SettingsFile:
    """Return the settings of such a file, without images.json."""
    return settings_file.read(write(directory, rest, beginning), directory / "images.json")
