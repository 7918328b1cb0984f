"""Outputs of a network for many images, at the highest speed of the device."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from container.training.data.images import ImageSet
from container.training.device import Arithmetic

# On a CPU each core computes one small batch, which fits into its cache. Cores that share a batch
# wait for each other after every layer, even longer if other programs run.
BATCH_SIZES = {"cpu": 8, "cuda": 256}

# A GPU computes one batch while the next one is copied to it.
GPU_BATCHES = 2


def answers(
    module: nn.Module, image_set: ImageSet, arithmetic: Arithmetic
) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the outputs (n, D) of `module`, batch by batch."""
    device, threads = arithmetic.device, torch.get_num_threads()
    batch_size = BATCH_SIZES[device.type]
    module.eval()

    def answer(start: int) -> npt.NDArray[np.float32]:
        images = to_images(image_set.pixels[start : start + batch_size], device)
        with torch.inference_mode(), arithmetic.autocast():
            found: Tensor = module(images)
        return found.float().cpu().numpy()

    with ThreadPoolExecutor(
        threads if device.type == "cpu" else GPU_BATCHES,
        # OpenMP's limit is per thread of ours; MKL has one limit for all, which is reset below.
        initializer=torch.set_num_threads,
        initargs=(1,),
    ) as pool:
        try:
            yield from pool.map(answer, range(0, len(image_set), batch_size))
        finally:
            torch.set_num_threads(threads)


def to_images(pixels: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    """Return pixels, uint8 (N, H, W, 3), as float32 (N, 3, H, W) in channels-last memory format."""
    # PyTorch needs writable memory: a slice of the mapped file is copied, but a copy that fancy
    # indexing has made is used as it is.
    writable = torch.from_numpy(np.require(pixels, requirements="W"))
    if device.type == "cuda":
        # The GPU copies from pinned memory while this process continues.
        writable = writable.pin_memory()
    return writable.to(device, non_blocking=True).permute(0, 3, 1, 2).float()
