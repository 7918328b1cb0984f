"""What a job's hyperparameters mean: devices, arithmetic, optimizer and schedule."""

import contextlib
import math
from collections import defaultdict
from collections.abc import Sequence
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

# Of a new head's learning rate to that of the pretrained layers.
HEAD_FACTOR = 10.0

_LEARNING_RATES = {
    # optimizer: (`small`, torchvision's from scratch, pretrained)
    "adamw": (0.005, 0.0005, 0.0002),
    "adam": (0.005, 0.0005, 0.0002),
    "sgd": (0.05, 0.01, 0.002),
}
_WEIGHT_DECAYS = {"adamw": 0.01, "adam": 0.0, "sgd": 0.0005}


def wants_download(hyperparameters: Hyperparameters) -> bool:
    """Tell whether a job without a `weights` channel starts from torchvision's weights."""
    if hyperparameters.pretrained is None:
        return hyperparameters.network != SMALL
    return hyperparameters.pretrained


def image_size(hyperparameters: Hyperparameters) -> int:
    """Return the network's input size in pixels."""
    if hyperparameters.image_size is not None:
        return hyperparameters.image_size
    return SMALL_IMAGE_SIZE if hyperparameters.network == SMALL else IMAGENET_IMAGE_SIZE


def smallest_share(pictures: int, batch_size: int, processes: int) -> int:
    """Return how many pictures of a batch the process with the fewest gets.

    Raises:
        UserError: none.
    """
    batches = math.ceil(pictures / batch_size)
    share = pictures // batches // processes
    if share == 0:
        message = (
            f"{pictures} pictures in batches of {batch_size} leave some of the {processes} "
            "processes without any: use a larger batch_size or fewer hosts and GPUs"
        )
        raise UserError(message)
    return share


def make_optimizer(
    module: nn.Module, fast_layers: Sequence[str], hyperparameters: Hyperparameters
) -> Optimizer:
    """Make the optimizer; biases and normalisation layers are spared the weight decay.

    Each of its groups says under `factor` how much faster than the schedule it learns: HEAD_FACTOR
    for the layers that `fast_layers` names, 1 for the others.
    """
    name = hyperparameters.optimizer
    weight_decay = hyperparameters.weight_decay
    if weight_decay is None:
        weight_decay = _WEIGHT_DECAYS[name]
    prefixes = tuple(f"{name}." for name in fast_layers)
    by_kind: dict[tuple[bool, bool], list[nn.Parameter]] = defaultdict(list)
    for parameter_name, parameter in module.named_parameters():
        by_kind[parameter_name.startswith(prefixes), parameter.ndim > 1].append(parameter)
    groups = [
        {
            "params": parameters,
            "factor": HEAD_FACTOR if is_fast else 1.0,
            "weight_decay": weight_decay if is_weight else 0.0,
        }
        for (is_fast, is_weight), parameters in by_kind.items()
    ]
    if name == "sgd":
        return torch.optim.SGD(groups, lr=1.0, momentum=0.9, nesterov=True)
    kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    return kind(groups, lr=1.0)


def peak_learning_rate(hyperparameters: Hyperparameters, *, pretrained: bool) -> float:
    """Return the peak of the one-cycle schedule."""
    if hyperparameters.learning_rate is not None:
        return hyperparameters.learning_rate
    small, from_scratch, fine_tuned = _LEARNING_RATES[hyperparameters.optimizer]
    if pretrained:
        return fine_tuned
    return small if hyperparameters.network == SMALL else from_scratch


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
