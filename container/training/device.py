"""Where training computes: device, number format and memory layout."""

import contextlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Self, TypeVar

import torch
from torch import nn

# Families of depthwise convolutions. They are bound by memory bandwidth, and a CPU computes them
# faster in float32 (`benchmarks.arithmetic`).
DEPTHWISE = ("efficientnet", "mnasnet", "mobilenet", "shufflenet")

ModuleT = TypeVar("ModuleT", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """The device of a training run and the number format of its forward pass."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def choose(cls, precision: str, network: str) -> Self:
        """Choose the device, and bfloat16 if `precision` allows it and it is most likely faster."""
        # With an index: other threads of a process do not inherit its current GPU.
        has_gpu = torch.cuda.is_available()
        device = (
            torch.device("cuda", torch.cuda.current_device()) if has_gpu else torch.device("cpu")
        )
        is_bfloat16 = precision == "bfloat16" or (
            precision == "auto" and _is_faster_in_bfloat16(device, network)
        )
        return cls(device, torch.bfloat16 if is_bfloat16 else torch.float32)

    def __str__(self) -> str:
        """Return device and number format, for example `cpu/float32`."""
        return f"{self.device.type}/{str(self.dtype).removeprefix('torch.')}"

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context of the forward pass."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def place(self, module: ModuleT) -> ModuleT:
        """Move a module to the device, its weights in the channels-last memory format."""
        return module.to(self.device).to(memory_format=torch.channels_last)


def has_bfloat16_instructions() -> bool:
    """Return whether the CPU multiplies bfloat16; emulated it is slower than float32."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _is_faster_in_bfloat16(device: torch.device, network: str) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return has_bfloat16_instructions() and not network.startswith(DEPTHWISE)
