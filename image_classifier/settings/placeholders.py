"""Placeholders for missing settings: a dry run prints requests without an account."""

from collections.abc import Mapping
from dataclasses import replace

from image_classifier.settings import service_model
from image_classifier.settings.settings_file import SettingsFile, required

REGION = "eu-west-1"

_REGISTRY = "111122223333.dkr.ecr.{region}.amazonaws.com"
_VALUES: Mapping[str, str] = {
    "aws.role": "arn:aws:iam::111122223333:role/PLACEHOLDER",
    "aws.scheduler_role": "arn:aws:iam::111122223333:role/PLACEHOLDER-scheduler",
    "aws.bucket": "placeholder-bucket",
    "images.train": f"{_REGISTRY}/image-classifier-train:PLACEHOLDER",
    "images.serve": f"{_REGISTRY}/image-classifier-serve:PLACEHOLDER",
    "images.serve_arm64": f"{_REGISTRY}/image-classifier-serve:PLACEHOLDER-arm64",
    "aws.region": "{region}",
}


def fill(file: SettingsFile, verb: str) -> tuple[SettingsFile, dict[str, str]]:
    """Return the settings with placeholders for missing keys of the account, and these.

    Args:
        file: the settings.
        verb: a key of `settings_file.REQUIRED`; other verbs need only a region.
    """
    settings = file.settings
    known = settings.aws.region or service_model.configured_region()
    filled = {}
    for key in (*required(verb, settings), "aws.region"):
        section_name, _, name = key.partition(".")
        section = getattr(settings, section_name)
        is_missing = (
            not known if key == "aws.region" else key in _VALUES and not getattr(section, name)
        )
        if is_missing:
            filled[key] = _VALUES[key].format(region=known or REGION)
            changed = section.model_copy(update={name: filled[key]})
            settings = settings.model_copy(update={section_name: changed})
    return replace(file, settings=settings), filled
