"""The files of a job's channels, for training, validation and test."""

import logging

from container.classifier import labeled_images
from container.classifier.channel_names import TEST, VALIDATION
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
    training, held_out, lost = labeled_images.read_channels(
        channels.training,
        {VALIDATION: channels.validation, TEST: channels.test},
        has_splits=has_splits,
    )
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
