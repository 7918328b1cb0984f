"""What a job's hyperparameters mean: devices, arithmetic, optimizer and schedule."""

import contextlib
import math
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from classifier.errors import UserError
from training.hyperparameters import Hyperparameters
from training.network import SMALL

SMALL_IMAGE_SIZE, IMAGENET_IMAGE_SIZE = 64, 224

# Share of the steps in which the learning rate rises.
WARM_UP = 0.2

_LEARNING_RATES = {
    # optimizer: (from scratch, pretrained)
    "adamw": (0.005, 0.0005),
    "adam": (0.005, 0.0005),
    "sgd": (0.05, 0.005),
}
_WEIGHT_DECAYS = {"adamw": 0.01, "adam": 0.0, "sgd": 0.0005}


def is_pretrained(hyperparameters: Hyperparameters) -> bool:
    """Tell whether training starts from somebody's weights."""
    if hyperparameters.pretrained is None:
        return hyperparameters.network != SMALL
    return hyperparameters.pretrained


def image_size(hyperparameters: Hyperparameters) -> int:
    """Return the network's input size in pixels."""
    if hyperparameters.image_size is not None:
        return hyperparameters.image_size
    return SMALL_IMAGE_SIZE if hyperparameters.network == SMALL else IMAGENET_IMAGE_SIZE


def smallest_share(pictures: int, batch_size: int, hosts: int) -> int:
    """Return how many pictures of a batch the host with the fewest gets.

    Raises:
        UserError: none.
    """
    batches = math.ceil(pictures / batch_size)
    share = pictures // batches // hosts
    if share == 0:
        message = (
            f"{pictures} pictures in batches of {batch_size} leave some of the {hosts} hosts "
            "without any: use a larger batch_size or fewer hosts"
        )
        raise UserError(message)
    return share


def make_optimizer(module: nn.Module, hyperparameters: Hyperparameters) -> Optimizer:
    """Make the optimizer; biases and normalisation layers are spared the weight decay."""
    name = hyperparameters.optimizer
    weight_decay = hyperparameters.weight_decay
    if weight_decay is None:
        weight_decay = _WEIGHT_DECAYS[name]
    groups = [
        {"params": [p for p in module.parameters() if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in module.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if name == "sgd":
        return torch.optim.SGD(groups, lr=1.0, momentum=0.9, nesterov=True)
    kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    return kind(groups, lr=1.0)


def peak_learning_rate(hyperparameters: Hyperparameters) -> float:
    """Return the peak of the one-cycle schedule."""
    if hyperparameters.learning_rate is not None:
        return hyperparameters.learning_rate
    from_scratch, pretrained = _LEARNING_RATES[hyperparameters.optimizer]
    return pretrained if is_pretrained(hyperparameters) else from_scratch


def one_cycle(step: int, total_steps: int) -> float:
    """Return the share of the peak learning rate at `step` (Smith 2018).

    A rise over the first fifth, then half a cosine down to zero.
    """
    progress = (step + 1) / (total_steps + 1)
    if progress < WARM_UP:
        return progress / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Where training computes, and in which number format."""

    device: torch.device
    dtype: torch.dtype

    def __str__(self) -> str:
        """Return both in words."""
        return f"{self.device.type}/{str(self.dtype).removeprefix('torch.')}"

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context of training's forward pass."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)


def arithmetic(precision: str) -> Arithmetic:
    """Choose the device, and bfloat16 where `precision` allows it and the hardware has it."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    if precision == "auto" and _has_bfloat16(device):
        dtype = torch.bfloat16
    return Arithmetic(device, dtype)


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Emulated bfloat16 is slower than float32.
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
