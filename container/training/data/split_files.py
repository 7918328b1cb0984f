"""The files of a job's channels, for training, validation and test."""

import logging

from container.classifier import labeled_images
from container.classifier.channel_names import SPLITS
from container.classifier.errors import UserError
from container.classifier.labeled_images import LabeledFile
from container.training.data import sampling
from container.training.hyperparameters import Hyperparameters
from container.training.sagemaker.environment import Channels

logger = logging.getLogger(__name__)


def find(
    channels: Channels, hyperparameters: Hyperparameters
) -> tuple[tuple[str, ...], dict[str, list[LabeledFile]], int]:
    """Return the class names, the files for training, validation and test, and those lost.

    Raises:
        UserError: a channel has no labeled images, or it is not certain what a folder is for.
    """
    if channels.unused:
        logger.warning("channels not used: %s", ", ".join(channels.unused))
    has_splits = hyperparameters.splits != "none"
    training, held_out, lost = _read_channels(channels, has_splits=has_splits)
    class_names = labeled_images.check_splits({"train": training, **held_out})
    flips = hyperparameters.horizontal_flip or hyperparameters.vertical_flip
    if flips and (pairs := labeled_images.mirrored_classes(class_names)):
        logger.warning(
            "flips are on, and classes look like left and right (%s): a flip makes one of the "
            "other; set horizontal_flip=false vertical_flip=false",
            ", ".join(f"{left}/{right}" for left, right in pairs[:5]),
        )
    if "validation" not in held_out:
        fraction, seed = hyperparameters.validation_fraction, hyperparameters.seed
        training, held_out["validation"] = sampling.split_validation(training, fraction, seed)
    return class_names, {"training": training, **held_out}, lost


def _read_channels(
    channels: Channels, *, has_splits: bool
) -> tuple[list[LabeledFile], dict[str, list[LabeledFile]], int]:
    """Return the files for training, those of validation and test, and the number of those lost.

    A single channel can contain the folders of all splits.

    Raises:
        UserError: it is not certain which files are for training.
    """
    others = {
        name: labeled_images.labeled_splits(path, is_whole=False, has_splits=has_splits)
        for name, path in (("validation", channels.validation), ("test", channels.test))
        if path is not None
    }
    training = labeled_images.labeled_splits(channels.training, has_splits=has_splits)
    lost = sum(splits.lost for splits in (training, *others.values()))
    held_out = {name: splits.single() for name, splits in others.items()}
    if len(training.files) == 1:
        return training.single(), held_out, lost
    counts = ", ".join(f"{name} ({len(files)} images)" for name, files in training.files.items())
    if held_out or "train" not in training.files or training.files.keys() - set(SPLITS):
        raise UserError(
            f"the training channel contains the splits {counts}: make the folder of each split a "
            "channel, `training`, `validation` and `test`"
        )
    logger.info("the training channel contains splits, which are used as channels: %s", counts)
    held_out = dict(training.files)
    return held_out.pop("train"), held_out, lost
