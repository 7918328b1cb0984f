"""Batch normalization: momentum of the statistics, and statistics over several ranks.

Ioffe and Szegedy 2015. With several ranks, mean and variance are those of the whole batch.
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
    """Replace the batch normalization layers of `module` by ones with statistics of all ranks.

    Within the block only, so that plain layers are evaluated and exported. The replacements have
    the same tensors under the same names.
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
    """The momentum of the running statistics in a module."""

    def __init__(self, module: nn.Module) -> None:
        """Record each layer's own momentum."""
        self._module = module
        self._own = {
            name: layer.momentum
            for name, layer in module.named_modules()
            if isinstance(layer, _BatchNorm)
        }

    def set_momentum(self, least: float) -> None:
        """Set the momentum of each layer to `least`, or to its own if that is larger."""
        # By name: `synchronized` replaces the layers.
        for name, layer in self._module.named_modules():
            own = self._own.get(name)
            # A momentum of None means a cumulative average.
            if own is not None and isinstance(layer, _BatchNorm):
                layer.momentum = max(own, least)


class SynchronizedBatchNorm(_BatchNorm):
    """The counterpart of torch.nn.SyncBatchNorm, which does not support the CPU."""

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, C, ...) normalized over all ranks, whose N may differ."""
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
        """Accept all inputs: their dimensions suit the replaced layer."""


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, features: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the output, and mean (C,), variance (C,) and count () over all ranks."""
        values = _at_least_float32(features)
        variance, mean = torch.var_mean(values, _reduced_dims(values), correction=0)
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
        """Return the gradients; those of weight and bias are sums over this rank's images."""
        features, mean, deviation, scale, total = ctx.saved_tensors  # type: ignore[attr-defined]
        values, gradients = _at_least_float32(features), _at_least_float32(gradient)
        normalized = values - _along_channels(mean, values)
        normalized /= _along_channels(deviation, values)
        dims = _reduced_dims(values)
        bias_gradient, weight_gradient = gradients.sum(dims), (gradients * normalized).sum(dims)
        means = torch.stack([bias_gradient, weight_gradient]).double()
        torch.distributed.all_reduce(means)
        shift, slope = means / total
        result = gradients - _along_channels(shift, values)
        result -= normalized * _along_channels(slope, values)
        result *= _along_channels(scale, values)
        # Weight and bias are optional.
        found = (result.to(features.dtype), weight_gradient, bias_gradient, None)
        needed: tuple[bool, ...] = ctx.needs_input_grad  # type: ignore[attr-defined]
        return tuple(g if is_needed else None for g, is_needed in zip(found, needed, strict=True))


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


def _reduced_dims(values: Tensor) -> list[int]:
    """Return all dimensions except the channels."""
    return [dim for dim in range(values.ndim) if dim != 1]


def _along_channels(vector: Tensor, values: Tensor) -> Tensor:
    """Return a vector (C,) in a shape that broadcasts over (N, C, ...)."""
    return vector.to(values.dtype).view(-1, *[1] * (values.ndim - 2))
