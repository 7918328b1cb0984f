"""Names, tags and other fields that requests of several kinds share."""

import re
import time

from image_classifier.settings.schema import Settings
from image_classifier.settings.service_model import Request

# Keys of tags on every resource; their values are the settings' name and who created it.
TAG, CREATOR_TAG = "image-classifier", "image-classifier-creator"

# Where a processing job has its inputs.
INPUTS = "/opt/ml/processing/input"

# Names of sessions that SDKs and instances make up: the next login has another one.
_CHANGING_SESSION = re.compile(r"(assumed-role/[^/]+)/(.*\d{10,}|i-[0-9a-f]+)")

# Families such as g5, c6id, g4dn and p4d.
_LOCAL_STORAGE = re.compile(r"ml\.(\w+\d\w*d\w*|gr?[56]\w*|p5\w*|trn\d\w*)\.")


def new_name(settings: Settings) -> str:
    """Return a name for a new job or model: the settings' name and the time in UTC."""
    return f"{settings.name}-{time.strftime('%y%m%d-%H%M%S', time.gmtime())}"


def is_ours(settings: Settings, name: str, *, with_trials: bool = True) -> bool:
    """Return whether a name belongs to these settings: `dogs-adamw` does not belong to `dogs`.

    The training jobs of a tuning job have its name with a suffix.
    """
    trial = r"(-\d+-[0-9a-f]+)?" if with_trials else ""
    own = rf"{re.escape(settings.name)}-\d{{6}}-\d{{6}}{trial}"
    is_own = name == settings.name or re.fullmatch(own, name) is not None
    return is_own or is_of_pipeline(settings, name)


def is_of_pipeline(settings: Settings, name: str) -> bool:
    """Return whether a job's name is one that SageMaker makes for a step of a pipeline.

    It has the execution's ID, a token of the step, and the number of failures before.
    """
    made = rf"{re.escape(settings.name)}-[a-z0-9]{{12}}-[A-Za-z0-9]+-\d+"
    return re.fullmatch(made, name) is not None


def tags(settings: Settings) -> list[dict[str, str]]:
    """Return the tags of every resource of these settings."""
    values = {**settings.aws.tags, TAG: settings.name}
    return [{"Key": key, "Value": value} for key, value in values.items()]


def creator(arn: str) -> str:
    """Return the value of the creator's tag for an identity of IAM.

    Args:
        arn: what GetCallerIdentity returns, such as arn:aws:iam::111122223333:user/team/anna.

    Returns:
        Such as user/anna, or assumed-role/ROLE/SESSION.
    """
    kind, *path = arn.split(":", 5)[5].split("/")
    # The names of users are unique without their paths.
    parts = [kind, *(path[-1:] if kind == "user" else path)]
    name = _CHANGING_SESSION.sub(r"\1", "/".join(parts))
    # Names can contain commas, values of tags cannot.
    return re.sub("[=,]", lambda found: f"={ord(found[0]):02X}", name)


def vpc(settings: Settings) -> Request:
    """Return the field VpcConfig, if the settings have a VPC."""
    aws = settings.aws
    if not aws.subnets:
        return {}
    groups, subnets = list(aws.security_groups), list(aws.subnets)
    return {"VpcConfig": {"SecurityGroupIds": groups, "Subnets": subnets}}


def processing_input(name: str, source: str, folder: str) -> Request:
    """Return an input of a processing job: an address on S3, copied to INPUTS/folder."""
    return {
        "InputName": name,
        "S3Input": {
            "S3Uri": source,
            "LocalPath": f"{INPUTS}/{folder}",
            "S3DataType": "S3Prefix",
            "S3InputMode": "File",
            "S3DataDistributionType": "FullyReplicated",
            "S3CompressionType": "None",
        },
    }


def kms_key(settings: Settings) -> dict[str, str]:
    """Return the field KmsKeyId of output on S3, if the settings have a key."""
    return {} if settings.aws.kms_key is None else {"KmsKeyId": settings.aws.kms_key}


def volume_key(settings: Settings, instance_type: str) -> dict[str, str]:
    """Return the field VolumeKmsKeyId of a job's disks, if the settings have a key.

    SageMaker rejects the field for instances with local storage, whose hardware encrypts it.
    """
    if settings.aws.kms_key is None or _LOCAL_STORAGE.match(instance_type):
        return {}
    return {"VolumeKmsKeyId": settings.aws.kms_key}
