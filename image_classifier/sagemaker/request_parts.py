"""What requests of several kinds share."""

import json
from collections.abc import Mapping

from image_classifier.settings.debugging import RULES
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


def hyperparameters(settings: Settings) -> dict[str, str]:
    """Return what a training gets: the file's own, and the rules that shall judge it."""
    debugger = settings.debugger
    rules = [
        {
            "RuleConfigurationName": RULES[rule][0],
            "RuleParameters": strings(debugger.parameters.get(rule, {})),
        }
        for rule in debugger.rules
    ]
    return strings({**({"debug_rules": rules} if rules else {}), **settings.hyperparameters})


def strings(values: Mapping[str, object]) -> dict[str, str]:
    """Return values as the API takes them: strings, those of JSON where they are no text."""
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in values.items()}
