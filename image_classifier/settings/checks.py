"""Checks of a settings file beyond the types of its values: hyperparameters, metrics, folders."""

import operator
from collections.abc import Collection, Iterator
from pathlib import Path

from container.classifier.channel_names import (
    CHANNEL_NAMES,
    TEST,
    TRAINING,
    VALIDATION,
    find_channel,
    find_folder,
)
from container.classifier.errors import UserError
from container.classifier.labeled_images import check_splits, read_channels
from image_classifier.settings import metric_definitions, service_model
from image_classifier.settings.schema import Settings
from image_classifier.settings.section import KeyPath, Mistake
from image_classifier.settings.tuning import rejection

# What SageMaker needs and this machine does not, with hints for messages.
PUSH_HINT = "./push.sh writes it into images.json"
ARM64_PUSH_HINT = "./push.sh --platform linux/arm64 serve writes it into images-arm64.json"
SAGEMAKER_KEYS = {
    "aws.role": "the ARN of the role that jobs run as",
    "aws.bucket": "the bucket for output",
    "images.train": PUSH_HINT,
    "images.serve": PUSH_HINT,
    "images.serve_arm64": ARM64_PUSH_HINT,
}


def find_mistakes(settings: Settings) -> Iterator[Mistake]:
    """Yield what the training program, or SageMaker, would reject."""
    yield from _hyperparameters(settings)
    yield from metric_definitions.mistakes(settings)


def _hyperparameters(settings: Settings) -> Iterator[Mistake]:
    """Yield why the training program would reject hyperparameters: each, or several together."""
    given = settings.hyperparameters
    rejected = dict(filter(None, (rejection({name: value}) for name, value in given.items())))
    yield from (Mistake(("hyperparameters", name), reason) for name, reason in rejected.items())
    ranges = settings.tuning.ranges if settings.tuning else {}
    # A trial has one value of each range.
    tried = {name: (limits.values or limits.bounds)[0] for name, limits in ranges.items()}
    valid = {name: value for name, value in given.items() if name not in rejected}
    trial = valid | {name: value for name, value in tried.items() if not rejection({name: value})}
    if found := rejection(trial):
        name, reason = found
        table = ("hyperparameters",) if name in given else ("tuning", "ranges")
        yield Mistake((*table, name), reason)


def find_missing_folders(
    settings: Settings, folder: Path | None, wrong: Collection[KeyPath]
) -> Iterator[Mistake]:
    """Yield which folders of `data.local` do not exist on this machine.

    Args:
        settings: the settings, with defaults for wrong keys.
        folder: `data.local` as an absolute path; None if it is unset.
        wrong: keys with mistakes.
    """
    if folder is None:
        return
    if not folder.is_dir():
        is_sample = folder.parts[-4:] == ("local_test", "test_dir", "input", "data")
        hint = (
            "draw the sample images with `python -m image_classifier.platform prepare`"
            if is_sample
            else "fix the path, create it with `image-classifier prepare SOURCE FOLDER`, or remove "
            "the key if the images are only on S3"
        )
        problem = "is not a folder" if folder.exists() else "does not exist"
        yield Mistake(("data", "local"), f"{problem}: {folder}; {hint}")
        return
    if ("data", "channels") in wrong and "channels" not in settings.data.model_fields_set:
        return
    found = sorted(path.name for path in folder.glob("*/"))
    listed = ", ".join(f"{name}/" for name in found[:10]) or "no folders"
    for channel in dict.fromkeys(settings.data.channels):
        accepted = next(names for names in CHANNEL_NAMES.values() if channel in names)
        if not set(found) & set(accepted):
            message = f"name {channel!r}, which has no folder in {folder}: found {listed}"
            yield Mistake(("data", "channels"), message)
        elif channel not in found and len(set(found) & set(accepted)) > 1:
            both = " and ".join(f"{name}/" for name in found if name in accepted)
            message = f"name {channel!r}, and {folder} has {both}: name one of them"
            yield Mistake(("data", "channels"), message)


def find_unusable_images(settings: Settings, folder: Path | None) -> Iterator[Mistake]:
    """Yield why the training program would reject the images of `data.local`, without decoding."""
    if folder is None:
        return
    folders = {path.name for path in folder.glob("*/")}
    paths: dict[str, Path] = {}
    for channel in CHANNEL_NAMES:
        name = find_channel(channel, settings.data.channels)
        if name and (found := find_folder(name, folders)):
            paths[channel] = folder / found
    if TRAINING not in paths:
        return
    has_splits = settings.hyperparameters.get("splits") != "none"
    others = {channel: paths.get(channel) for channel in (VALIDATION, TEST)}
    try:
        files, held_out, _ = read_channels(paths[TRAINING], others, has_splits=has_splits)
        check_splits({"train": files, **held_out})
    except UserError as error:
        yield Mistake(("data", "local"), f"cannot be trained on: {error}")


def unused_folders(settings: Settings, folder: Path | None) -> str | None:
    """Return a sentence about folders of channels that the settings do not name, or None."""
    if folder is None:
        return None
    unused = [
        found
        for channel in CHANNEL_NAMES
        if not find_channel(channel, settings.data.channels)
        and (found := find_channel(channel, {path.name for path in folder.glob("*/")}))
    ]
    return f"not used, because data.channels lacks them: {', '.join(unused)}" if unused else None


def missing_for_sagemaker(settings: Settings) -> str | None:
    """Return a sentence about the keys that only SageMaker needs and the settings lack, or None."""
    missing = [
        f"{key} ({hint})"
        for key, hint in SAGEMAKER_KEYS.items()
        if key != f"images.{'serve' if settings.endpoint.is_arm64 else 'serve_arm64'}"
        and not operator.attrgetter(key)(settings)
    ]
    if not (settings.aws.region or service_model.configured_region()):
        missing.append("aws.region (or the environment variable AWS_REGION)")
    return f"missing for SageMaker only: {', '.join(missing)}" if missing else None
