"""The number format of training, chosen by measuring a few steps in float32 and bfloat16.

A processor can have instructions for bfloat16 and still train some networks faster in float32.
"""

import copy
import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from time import perf_counter

import torch
from torch.nn.functional import cross_entropy

from container.networks.network import Classifier
from container.training.device import Arithmetic, has_bfloat16_instructions
from container.training.evaluation.inference import to_images
from container.training.fitting.checkpoint import Checkpoints
from container.training.fitting.cluster import Cluster
from container.training.fitting.task import Task
from container.training.recipe import Recipe

logger = logging.getLogger(__name__)

# The key of the number format in a checkpoint.
STATE = "arithmetic"

# Images of a measured step.
BATCH_SIZE = 16

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
    chosen = _choose(task, likely, checkpoints.newest) if cluster.is_first else None
    dtype = cluster.from_first(chosen)
    return replace(likely, dtype=dtype) if isinstance(dtype, torch.dtype) else likely


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
    seconds = _seconds(task, [float32, bfloat16])
    found = " ".join(f"{name}={1000 * value:.0f}ms" for name, value in seconds.items())
    logger.info("measured steps of %d images: %s", min(BATCH_SIZE, len(task.training)), found)
    is_faster = seconds[str(bfloat16)] <= GAIN * seconds[str(float32)]
    return (bfloat16 if is_faster else float32).dtype


def _seconds(task: Task, formats: list[Arithmetic]) -> dict[str, float]:
    """Return the shortest time of a step in each format. They take turns."""
    pixels, labels = task.training.pixels[:BATCH_SIZE], task.training.labels[:BATCH_SIZE]
    shortest = dict.fromkeys(map(str, formats), math.inf)
    # A copy, because batch normalization counts images. Dropout draws random numbers.
    classifier = formats[0].place(Classifier(copy.deepcopy(task.network.module))).train()
    images, targets = to_images(pixels, formats[0].device), torch.from_numpy(labels)
    with torch.random.fork_rng(devices=()):
        is_warm, end = False, math.inf
        while perf_counter() < end:
            for arithmetic in formats:
                start = perf_counter()
                with arithmetic.autocast():
                    logits = classifier(images).float()
                cross_entropy(logits, targets).backward()  # type: ignore[no-untyped-call]
                if is_warm:
                    seconds = perf_counter() - start
                    shortest[str(arithmetic)] = min(shortest[str(arithmetic)], seconds)
            if not is_warm:
                is_warm, end = True, perf_counter() + LIMIT_SECONDS
    return shortest
