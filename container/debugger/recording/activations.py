"""What a network's layers put in and out, seen in one pass beside the training.

The pass changes nothing: it is in evaluation mode but for batch normalization, without gradients,
on the module itself rather than on what was compiled or distributed, and its hooks are gone
afterwards. Functions that are no modules, as in DenseNet's `relu`, are not seen.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

# By what AWS's rules call them; the name is added to modules that are called otherwise.
KINDS: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.ReLU6: "relu",
    nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
}

# Takes a layer's name, its kind where it is an activation, its input and its output.
See = Callable[[str, str | None, Tensor, Tensor], None]


def watch(module: nn.Module, images: Tensor, see: See) -> None:
    """Let `images` through the module and show `see` every layer that has no layers within."""
    inputs: dict[nn.Module, Tensor] = {}
    calls: dict[str, int] = {}
    handles = []

    def before(layer: nn.Module, arguments: tuple[object, ...]) -> None:
        # An activation may work in place.
        if arguments and isinstance(arguments[0], Tensor):
            is_in_place = bool(getattr(layer, "inplace", False))
            inputs[layer] = arguments[0].clone() if is_in_place else arguments[0]

    def after(name: str, kind: str | None) -> Callable[[nn.Module, object, object], None]:
        def look(layer: nn.Module, _arguments: object, output: object) -> None:
            if layer in inputs and isinstance(output, Tensor):
                number = calls.get(name, 0)
                calls[name] = number + 1
                see(f"{name}|{number}", kind, inputs.pop(layer), output)

        return look

    for path, layer in module.named_modules():
        if any(True for _ in layer.children()):
            continue
        kind = KINDS.get(type(layer))
        name = path if kind is None or path.endswith(kind) else f"{path}_{kind}"
        handles += [
            layer.register_forward_pre_hook(before),
            layer.register_forward_hook(after(name, kind)),
        ]
    # A single image has no statistics.
    learning = [layer for layer in module.modules() if layer.training and len(images) > 1]
    try:
        with _evaluating(module), _normalized_by_batch(learning), torch.no_grad():
            module(images)
    finally:
        for handle in handles:
            handle.remove()


def activity(output: Tensor) -> Tensor:
    """Return in what share of the places each unit of an output (N, C, ...) is above zero: (C,)."""
    others = [axis for axis in range(output.ndim) if axis != 1]
    return (output > 0).float().mean(dim=others)


def sample(values: Tensor, side: int) -> Tensor:
    """Return evenly spread values of (N, C, H, W): of each channel about `side` x `side`."""
    for axis in range(2, values.ndim):
        step = max(1, values.shape[axis] // side)
        values = values[(slice(None),) * axis + (slice(step // 2, None, step),)]
    return values


@contextmanager
def _normalized_by_batch(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Let batch normalization take the pass's own statistics, as in training, and keep none.

    Those that it gathers say little at first: before the first step they change nothing, and
    layers of the best initialization seem to have scales that differ a thousandfold.
    """
    buffers = [
        (layer, name, buffer)
        for layer in layers
        if isinstance(layer, _BatchNorm)
        for name, buffer in layer.named_buffers()
    ]
    for layer, name, _ in buffers:
        setattr(layer, name, None)
    try:
        yield
    finally:
        for layer, name, buffer in buffers:
            setattr(layer, name, buffer)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Put all layers into evaluation mode, and each back into its own."""
    modes = [(layer, layer.training) for layer in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for layer, is_training in modes:
            layer.training = is_training
