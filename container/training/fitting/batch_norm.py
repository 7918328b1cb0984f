"""Batch normalization: how fast it forgets, and batches that are spread over several processes.

Ioffe and Szegedy 2015. Of spread ones the mean and variance are those of one process that has the
whole batch.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def synchronized(module: nn.Module) -> Iterator[None]:
    """Let the batch normalization within `module` take the statistics of all processes.

    Only while the block lasts, and only of layers in training mode: what is evaluated or exported
    has plain ones. Their parameters and buffers are the same tensors, under the same names.
    """
    layers = {n: layer for n, layer in module.named_modules() if isinstance(layer, _BatchNorm)}
    replacements = {name: _replacement(layer) for name, layer in layers.items()}
    for name, replacement in replacements.items():
        module.set_submodule(name, replacement)
    try:
        yield
    finally:
        for name, layer in layers.items():
            module.set_submodule(name, layer.train(replacements[name].training))


class RunningStatistics:
    """How fast the running statistics within a module forget."""

    def __init__(self, module: nn.Module) -> None:
        """Note each layer's own momentum."""
        self._module = module
        self._own = {
            name: layer.momentum
            for name, layer in module.named_modules()
            if isinstance(layer, _BatchNorm)
        }

    def set_momentum(self, least: float) -> None:
        """Let them take in so much of each batch's, or the layer's own share if that is more."""
        # By name: while several processes learn, other layers stand there.
        for name, layer in self._module.named_modules():
            own = self._own.get(name)
            # Without a momentum it is a plain average.
            if own is not None and isinstance(layer, _BatchNorm):
                layer.momentum = max(own, least)


class SynchronizedBatchNorm(_BatchNorm):
    """What torch.nn.SyncBatchNorm is for GPUs, on the CPU, where that one refuses to work."""

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, C, ...) normalized by all processes' images; N may differ among them."""
        if not self.training:
            return super().forward(features)
        normalized: Tensor
        normalized, mean, variance, count = _Normalize.apply(
            features, self.weight, self.bias, self.eps
        )
        self._track(mean, variance * count / (count - 1))
        return normalized

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        if self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        momentum = self.momentum
        if momentum is None:
            momentum = 1 / self.num_batches_tracked.item()
        for running, value in ((self.running_mean, mean), (self.running_var, variance)):
            if running is not None:
                running.mul_(1 - momentum).add_(value, alpha=momentum)

    def _check_input_dim(self, features: Tensor) -> None:
        """Take any; the layer in whose place this one is has checked."""


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, features: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the result, and of all processes' batch mean, variance (C,) and count ()."""
        values = _at_least_float32(features)
        variance, mean = torch.var_mean(values, _others(values), correction=0)
        mean, variance = mean.double(), variance.double()
        count = values.numel() // len(mean)
        sums = torch.cat([count * mean, count * (variance + mean**2), mean.new_tensor([count])])
        torch.distributed.all_reduce(sums)
        total = sums[-1]
        mean, mean_square = sums[:-1].view(2, -1) / total
        variance = (mean_square - mean**2).clamp(min=0)
        deviation = (variance + eps).sqrt()
        scale = 1 / deviation if weight is None else weight / deviation
        shift = -mean * scale if bias is None else bias - mean * scale
        ctx.save_for_backward(features, mean, deviation, scale, total)
        ctx.mark_non_differentiable(mean, variance, total)
        result = values * _along_channels(scale, values) + _along_channels(shift, values)
        return result.to(features.dtype), mean, variance, total

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients; those of weight and bias are of this process's images alone."""
        features, mean, deviation, scale, total = ctx.saved_tensors  # type: ignore[attr-defined]
        values, gradients = _at_least_float32(features), _at_least_float32(gradient)
        normalized = values - _along_channels(mean, values)
        normalized /= _along_channels(deviation, values)
        dims = _others(values)
        of_bias, of_weight = gradients.sum(dims), (gradients * normalized).sum(dims)
        means = torch.stack([of_bias, of_weight]).double()
        torch.distributed.all_reduce(means)
        shift, slope = means / total
        result = gradients - _along_channels(shift, values)
        result -= normalized * _along_channels(slope, values)
        result *= _along_channels(scale, values)
        # There may be no weight and no bias.
        found = (result.to(features.dtype), of_weight, of_bias, None)
        wanted: tuple[bool, ...] = ctx.needs_input_grad  # type: ignore[attr-defined]
        return tuple(g if is_wanted else None for g, is_wanted in zip(found, wanted, strict=True))


def _replacement(layer: _BatchNorm) -> _BatchNorm:
    if any(tensor.is_cuda for tensor in layer.state_dict().values()):
        synchronized_layer: _BatchNorm = nn.SyncBatchNorm.convert_sync_batchnorm(layer)  # type: ignore[no-untyped-call]
        return synchronized_layer
    replacement = SynchronizedBatchNorm(
        layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats
    )
    replacement.weight, replacement.bias = layer.weight, layer.bias
    replacement.running_mean, replacement.running_var = layer.running_mean, layer.running_var
    replacement.num_batches_tracked = layer.num_batches_tracked
    return replacement.train(layer.training)


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _others(values: Tensor) -> list[int]:
    """Return all dimensions but the channels'."""
    return [dim for dim in range(values.ndim) if dim != 1]


def _along_channels(vector: Tensor, values: Tensor) -> Tensor:
    """Return (C,) so that it broadcasts over (N, C, ...)."""
    return vector.to(values.dtype).view(-1, *[1] * (values.ndim - 2))
