"""Names, tags and other fields that requests of several kinds share."""

import re
import time

from image_classifier.settings.schema import Settings
from image_classifier.settings.service_model import Request

# Key of a tag on every resource; its value is the settings' name.
TAG = "image-classifier"


def new_name(settings: Settings) -> str:
    """Return a name for a new job or model: the settings' name and the time in UTC."""
    return f"{settings.name}-{time.strftime('%y%m%d-%H%M%S', time.gmtime())}"


def is_ours(settings: Settings, name: str, *, with_trials: bool = True) -> bool:
    """Return whether a name belongs to these settings: `dogs-adamw` does not belong to `dogs`.

    The training jobs of a tuning job have its name with a suffix.
    """
    trial = r"(-\d+-[0-9a-f]+)?" if with_trials else ""
    own = rf"{re.escape(settings.name)}-\d{{6}}-\d{{6}}{trial}"
    return name == settings.name or re.fullmatch(own, name) is not None


def tags(settings: Settings) -> list[dict[str, str]]:
    """Return the tags of every resource of these settings."""
    values = {**settings.aws.tags, TAG: settings.name}
    return [{"Key": key, "Value": value} for key, value in values.items()]


def vpc(settings: Settings) -> Request:
    """Return the field VpcConfig, if the settings have a VPC."""
    aws = settings.aws
    if not aws.subnets:
        return {}
    groups, subnets = list(aws.security_groups), list(aws.subnets)
    return {"VpcConfig": {"SecurityGroupIds": groups, "Subnets": subnets}}


def kms_key(settings: Settings) -> dict[str, str]:
    """Return the field KmsKeyId of output on S3, if the settings have a key."""
    return {} if settings.aws.kms_key is None else {"KmsKeyId": settings.aws.kms_key}
