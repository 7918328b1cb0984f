"""The image size of a job with a time budget, chosen by measuring a training step.

Several passes over smaller images learn more than one over larger images in the same time.
"""

import contextlib
import logging
import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from container.classifier.errors import ImageError, UserError
from container.classifier.labeled_images import LabeledFile
from container.classifier.preprocessing import decode_image
from container.networks.network import SMALL, Network, build, check_input
from container.training import recipe
from container.training.device import Arithmetic
from container.training.fitting.cluster import Cluster
from container.training.fitting.step_time import BATCH_SIZE, shortest_seconds
from container.training.hyperparameters import Hyperparameters

logger = logging.getLogger(__name__)

# The key of the image size in a checkpoint.
STATE = "image_size"

# In pixels.
SIZES, SIZE_STEP = (224, 192, 160, 128), 32

# Files of which the size is read.
SAMPLE = 25

# Passes over the training images for which there has to be time. `benchmarks.fine_tuning` measures
# that four at 128 pixels gain more than two at 224; on larger files it was not measured.
EPOCHS = 5

# Part of the budget for them. The rest is for the start, the artifact and the reports.
SHARE = 0.7

# A forward pass takes this part of a training step's time.
INFERENCE = 1 / 3

LIMIT_SECONDS = 1.0


def choose(
    hyperparameters: Hyperparameters,
    num_classes: int,
    training: Sequence[LabeledFile],
    validation: Sequence[LabeledFile],
    cluster: Cluster,
) -> int:
    """Return the image size in pixels, which the first rank chooses.

    That of the hyperparameters if they state one, if there is no time budget or nothing to learn
    after the head, and for `small`.
    """
    usual = recipe.image_size(hyperparameters)
    if (
        hyperparameters.max_minutes is None
        or hyperparameters.image_size is not None
        or hyperparameters.network == SMALL
        or hyperparameters.fine_tuning == "none"
    ):
        return usual
    size = usual
    if cluster.is_first:
        images = EPOCHS * (len(training) + INFERENCE * len(validation))
        images += INFERENCE * (len(training) + len(validation))  # for the head
        images /= cluster.world_size
        size = _largest(hyperparameters, num_classes, images, _shorter_side(training))
    return cluster.from_first(size)


def recorded(state: Mapping[str, object] | None) -> int | None:
    """Return the image size of a checkpoint, if it has one."""
    size = (state or {}).get(STATE)
    return size if isinstance(size, int) else None


def _largest(hyperparameters: Hyperparameters, num_classes: int, images: float, side: float) -> int:
    """Return the largest size at which so many images are trained in time; else the smallest.

    Sizes above the files' shorter `side` cost time and add no detail.
    """
    with torch.random.fork_rng(devices=()):
        network = build(hyperparameters.network, num_classes, SIZES[0])
        seconds = _image_seconds(network, hyperparameters) * images
    limit = 60 * (hyperparameters.max_minutes or 0.0) * SHARE
    allowed = [size for size in SIZES if _is_accepted(network, size)]
    # The time is that of the pixels.
    useful = [size for size in allowed if size < side + SIZE_STEP] or [min(allowed)]
    in_time = [size for size in useful if seconds * (size / SIZES[0]) ** 2 <= limit]
    size = max(in_time, default=min(useful))
    logger.info(
        "image_size=%d: the median shorter side of the files is %s pixels, and %d passes over them "
        "take about %.1f minutes",
        size,
        f"{side:g}" if side < SIZES[0] else f"{SIZES[0]} or more",
        EPOCHS,
        seconds * (size / SIZES[0]) ** 2 / 60,
    )
    return size


def _image_seconds(network: Network, hyperparameters: Hyperparameters) -> float:
    """Return the time of a training step per image of the largest size."""
    arithmetic = Arithmetic.choose(hyperparameters.precision, hyperparameters.network)
    pixels = np.random.default_rng(0).integers(
        0, 256, (BATCH_SIZE, SIZES[0], SIZES[0], 3), np.uint8
    )
    labels = np.zeros(BATCH_SIZE, np.int64)
    seconds = shortest_seconds(network.module, pixels, labels, [arithmetic], LIMIT_SECONDS)
    return seconds[str(arithmetic)] / BATCH_SIZE


def _shorter_side(files: Sequence[LabeledFile]) -> float:
    """Return the median shorter side in pixels, of at most the largest size, of some files."""
    sides = list[int]()
    for file in files[:: math.ceil(len(files) / SAMPLE)]:
        with contextlib.suppress(ImageError, OSError):
            image = decode_image(file.path.read_bytes(), SIZES[0])
            sides.append(min(*image.size, SIZES[0]))
    return statistics.median(sides or [SIZES[0]])


def _is_accepted(network: Network, size: int) -> bool:
    """Return whether a network that was built for the largest size accepts images of this one."""
    try:
        check_input(network, BATCH_SIZE, size)
    except UserError:
        return False
    return True
