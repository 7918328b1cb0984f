"""Reductions of a tensor to single numbers, in one transfer from its device."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

_KINDS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "min": torch.min,
    "max": torch.max,
    "mean": torch.mean,
    "std": torch.std,
    "variance": torch.var,
    "sum": torch.sum,
    "prod": torch.prod,
    "l1": lambda tensor: torch.linalg.vector_norm(tensor, 1),
    "l2": torch.linalg.vector_norm,
}


def reduce(tensor: Tensor, wanted: Sequence[tuple[str, bool]]) -> list[float]:
    """Return reductions of a tensor, each given by its name and whether it is of absolute values.

    They are computed on the tensor's device in float32 or float64, with one synchronization.
    """
    values = tensor.detach()
    # bfloat16 and integers.
    if values.dtype not in (torch.float32, torch.float64):
        values = values.float()
    if values.numel() == 0:
        return [float("nan")] * len(wanted)
    found = {}
    absolute = values.abs() if any(is_absolute for _, is_absolute in wanted) else values
    for kind, is_absolute in wanted:
        of = absolute if is_absolute else values
        # torch returns NaN for the deviation of a single value.
        is_single = of.numel() == 1 and kind in {"std", "variance"}
        found[kind, is_absolute] = of.new_zeros(()) if is_single else _KINDS[kind](of)
    reduced: list[float] = torch.stack([found[each] for each in wanted]).tolist()
    return reduced
