"""Inputs and outputs of a network's layers, from a separate forward pass.

The pass does not affect the training: it runs without gradients, in evaluation mode except for
batch normalization, on the module that was neither compiled nor distributed, and removes its hooks.
Functions that are not modules, such as DenseNet's `relu`, are not recorded.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

# Names that AWS's rules expect; they are appended to the names of other modules.
KINDS = {nn.ReLU: "relu", nn.ReLU6: "relu", nn.Sigmoid: "sigmoid", nn.Tanh: "tanh"}

# Receives a layer's name, its kind if it is an activation, its input and its output.
Receive = Callable[[str, str | None, Tensor, Tensor], None]


def observe(module: nn.Module, images: Tensor, receive: Receive) -> None:
    """Run the module on `images`, and call `receive` for every layer without child layers."""
    inputs: dict[nn.Module, Tensor] = {}
    calls: Counter[str] = Counter()
    handles = []

    def before(layer: nn.Module, arguments: tuple[object, ...]) -> None:
        # An activation may overwrite its input.
        if arguments and isinstance(arguments[0], Tensor):
            is_in_place = bool(getattr(layer, "inplace", False))
            inputs[layer] = arguments[0].clone() if is_in_place else arguments[0]

    def after(
        name: str, kind: str | None, layer: nn.Module, _arguments: object, output: object
    ) -> None:
        if layer in inputs and isinstance(output, Tensor):
            receive(f"{name}|{calls[name]}", kind, inputs.pop(layer), output)
            calls[name] += 1

    for path, layer in module.named_modules():
        if any(True for _ in layer.children()):
            continue
        kind = KINDS.get(type(layer))
        name = path if kind is None or path.endswith(kind) else f"{path}_{kind}"
        handles += [
            layer.register_forward_pre_hook(before),
            layer.register_forward_hook(partial(after, name, kind)),
        ]
    try:
        # A single image has no statistics.
        with _evaluating(module, use_batch_statistics=len(images) > 1), torch.no_grad():
            module(images)
    finally:
        for handle in handles:
            handle.remove()


def activity(output: Tensor) -> Tensor:
    """Return the share of positive values of each unit: (N, C, ...) to (C,)."""
    others = [axis for axis in range(output.ndim) if axis != 1]
    return (output > 0).float().mean(dim=others)


def sample(values: Tensor, side: int) -> Tensor:
    """Return about `side` x `side` evenly spaced values of each channel of (N, C, H, W)."""
    for axis in range(2, values.ndim):
        step = max(1, values.shape[axis] // side)
        values = values[(slice(None),) * axis + (slice(step // 2, None, step),)]
    return values


@contextmanager
def _evaluating(module: nn.Module, *, use_batch_statistics: bool) -> Iterator[None]:
    """Put all layers into evaluation mode, and restore the mode of each.

    With `use_batch_statistics`, batch normalization that is training uses the statistics of the
    batch, without updates. The running statistics are useless before the first step: they normalize
    nothing, so that the scales of well initialized layers seem to differ a thousandfold.
    """
    modes = [(layer, layer.training) for layer in module.modules()]
    buffers = [
        (layer, name, buffer)
        for layer, is_training in modes
        if use_batch_statistics and is_training and isinstance(layer, _BatchNorm)
        for name, buffer in layer.named_buffers()
    ]
    module.eval()
    for normalization, name, _ in buffers:
        setattr(normalization, name, None)
    try:
        yield
    finally:
        for normalization, name, buffer in buffers:
            setattr(normalization, name, buffer)
        for layer, is_training in modes:
            layer.training = is_training
