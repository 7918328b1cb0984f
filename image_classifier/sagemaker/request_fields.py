"""What requests of several kinds share."""

from image_classifier.settings.schema import Settings
from image_classifier.settings.service_model import Request

# On everything that is made: `delete` and `status` find it by this tag.
TAG = "image-classifier"


def tags(settings: Settings) -> list[dict[str, str]]:
    """Return the tags of all that is made for these settings."""
    return [
        {"Key": k, "Value": v} for k, v in (dict(settings.aws.tags) | {TAG: settings.name}).items()
    ]


def vpc(settings: Settings) -> Request:
    """Return the VPC's part of a request, if there is one."""
    aws = settings.aws
    if not aws.subnets:
        return {}
    groups, subnets = list(aws.security_groups), list(aws.subnets)
    return {"VpcConfig": {"SecurityGroupIds": groups, "Subnets": subnets}}


def key(settings: Settings) -> dict[str, str]:
    """Return the part that names the key for what is written to S3, if there is one."""
    return {} if settings.aws.kms_key is None else {"KmsKeyId": settings.aws.kms_key}
