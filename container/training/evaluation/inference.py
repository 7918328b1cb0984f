"""What a network answers to many images, as fast as the device can."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from container.training.data.images import ImageSet
from container.training.device import Arithmetic

# On a processor each core has a batch of its own, which its cache holds. Cores that share a batch
# wait for each other after every layer, the longer the more other programs run.
BATCH_SIZES = {"cpu": 8, "cuda": 256}

# A GPU computes one batch while the next is sent.
BATCHES_OF_A_GPU = 2


def answers(
    module: nn.Module, image_set: ImageSet, arithmetic: Arithmetic
) -> Iterator[npt.NDArray[np.float32]]:
    """Yield what `module` answers (n, D) to one batch of images after another."""
    device, threads = arithmetic.device, torch.get_num_threads()
    batch_size = BATCH_SIZES[device.type]
    module.eval()

    def answer(start: int) -> npt.NDArray[np.float32]:
        images = to_images(image_set.pixels[start : start + batch_size], device)
        with torch.inference_mode(), arithmetic.autocast():
            found: Tensor = module(images)
        return found.float().cpu().numpy()

    with ThreadPoolExecutor(
        threads if device.type == "cpu" else BATCHES_OF_A_GPU,
        # OpenMP counts for every thread of ours; MKL has one number for all, set back below.
        initializer=torch.set_num_threads,
        initargs=(1,),
    ) as pool:
        try:
            yield from pool.map(answer, range(0, len(image_set), batch_size))
        finally:
            torch.set_num_threads(threads)


def to_images(pixels: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    """Return float32 (N, 3, H, W), channels last in memory, of uint8 (N, H, W, 3)."""
    # Torch wants memory that it may write: a slice of the mapped file is copied, what fancy
    # indexing has copied is taken as it is.
    own = torch.from_numpy(np.require(pixels, requirements="W"))
    if device.type == "cuda":
        # From such memory a GPU fetches by itself, while this process continues.
        own = own.pin_memory()
    return own.to(device, non_blocking=True).permute(0, 3, 1, 2).float()
