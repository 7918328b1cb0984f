"""The time of a training step, measured before the job decides what depends on it."""

import copy
import math
from collections.abc import Sequence
from time import perf_counter

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from container.classifier.preprocessing import Pixels
from container.networks.network import Classifier
from container.training.device import Arithmetic
from container.training.evaluation.inference import to_images

# Images of a measured step.
BATCH_SIZE = 16


def shortest_seconds(
    network: nn.Module,
    pixels: Pixels,
    labels: npt.NDArray[np.int64],
    formats: Sequence[Arithmetic],
    limit_seconds: float,
) -> dict[str, float]:
    """Return the shortest time of a step in each number format. They take turns.

    Args:
        network: is not changed.
        pixels: of the step's images, of shape (N, H, W, 3).
        labels: of the images, of shape (N,).
        formats: all on one device.
        limit_seconds: after which the turns end.
    """
    shortest = dict.fromkeys(map(str, formats), math.inf)
    # A copy, because batch normalization counts images. Dropout draws random numbers.
    classifier = formats[0].place(Classifier(copy.deepcopy(network))).train()
    device = formats[0].device
    images, targets = to_images(pixels, device), torch.from_numpy(labels).to(device)
    with torch.random.fork_rng():
        is_warm, end = False, math.inf
        while perf_counter() < end:
            for arithmetic in formats:
                start = perf_counter()
                with arithmetic.autocast():
                    logits = classifier(images).float()
                loss = cross_entropy(logits, targets)
                loss.backward()  # type: ignore[no-untyped-call]
                if arithmetic.device.type == "cuda":
                    torch.cuda.synchronize()
                if is_warm:
                    seconds = perf_counter() - start
                    shortest[str(arithmetic)] = min(shortest[str(arithmetic)], seconds)
            if not is_warm:
                is_warm, end = True, perf_counter() + limit_seconds
    return shortest
