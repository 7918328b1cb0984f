"""The number format of training, chosen by measuring a few steps in float32 and bfloat16.

A processor can have instructions for bfloat16 and still train some networks faster in float32.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace

import torch

from container.training.device import Arithmetic, has_bfloat16_instructions
from container.training.fitting.checkpoint import Checkpoints
from container.training.fitting.cluster import Cluster
from container.training.fitting.step_time import BATCH_SIZE, shortest_seconds
from container.training.fitting.task import Task
from container.training.recipe import Recipe

logger = logging.getLogger(__name__)

# The key of the number format in a checkpoint.
STATE = "arithmetic"

# Rounds end after so many seconds. Each has a step in both formats.
LIMIT_SECONDS = 2.0

# float32, which is more exact, is used unless bfloat16 takes at most this part of its time.
GAIN = 0.9

# Pixels that a job trains on, below which the time of the measurement is not worth it: 1,000 images
# of 224 x 224, in all epochs together.
MIN_PIXELS = 50_000_000


def choose(task: Task, cluster: Cluster, checkpoints: Checkpoints) -> Arithmetic:
    """Return the device of this rank, and the number format that the first rank chooses.

    A job that continues has the format of its checkpoint. The task's network is not changed.
    """
    settings = task.hyperparameters
    likely = Arithmetic.choose(settings.precision, settings.network)
    if settings.precision != "auto" or likely.device.type != "cpu":
        return likely
    dtype = _choose(task, likely, checkpoints.newest) if cluster.is_first else likely.dtype
    return replace(likely, dtype=cluster.from_first(dtype))


def _choose(task: Task, likely: Arithmetic, newest: Mapping[str, object] | None) -> torch.dtype:
    float32, bfloat16 = (replace(likely, dtype=each) for each in (torch.float32, torch.bfloat16))
    if newest is not None:
        # Checkpoints of earlier versions, and those of a GPU, do not decide.
        recorded = newest.get(STATE)
        return next((each for each in (float32, bfloat16) if str(each) == recorded), likely).dtype
    settings = task.hyperparameters
    recipe = Recipe.of(settings, task.training.labels, pretrained=task.is_pretrained)
    pixels = recipe.epochs * len(task.training) * task.preprocessing.image_size**2
    if pixels < MIN_PIXELS or not has_bfloat16_instructions():
        return likely.dtype
    images, labels = task.training.pixels[:BATCH_SIZE], task.training.labels[:BATCH_SIZE]
    formats = [float32, bfloat16]
    seconds = shortest_seconds(task.network.module, images, labels, formats, LIMIT_SECONDS)
    found = " ".join(f"{name}={1000 * value:.0f}ms" for name, value in seconds.items())
    logger.info("measured steps of %d images: %s", len(labels), found)
    is_faster = seconds[str(bfloat16)] <= GAIN * seconds[str(float32)]
    return (bfloat16 if is_faster else float32).dtype
