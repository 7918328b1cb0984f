"""Which layers of a pretrained network learn when, and how fast (Howard and Ruder 2018).

What the first layers know, edges and textures, suits nearly every image; the last ones know the
classes of another data set.
"""

import math

from torch.nn.modules.batchnorm import _BatchNorm

from container.networks.network import Network

# Of the first layer's learning rate to the head's.
FIRST_LAYER_FACTOR = 0.1

# Groups of layers by depth, and the first of those that learn in the first stage: the last third.
# An optimizer's group learns as a whole or not at all.
GROUPS, LAST_GROUPS = 6, 4

# Share of the epochs in which only the last layers learn.
FIRST_STAGE = 1 / 3


def depths(network: Network) -> dict[str, int]:
    """Return how deep each parameter lies: from 0, the first layers', to GROUPS, the head's."""
    heads = tuple(f"{name}." for name in network.heads)
    names = [name for name, _ in network.module.named_parameters()]
    body = [name for name in names if not name.startswith(heads)]
    # torchvision's networks name their layers in the order in which an image meets them.
    return dict.fromkeys(names, GROUPS) | {
        name: place * GROUPS // len(body) for place, name in enumerate(body)
    }


def learning_rate_factor(depth: int) -> float:
    """Return the share of the learning rate at a depth."""
    return float(FIRST_LAYER_FACTOR ** (1 - depth / GROUPS))


def first_stage_epochs(epochs: int) -> int:
    """Return in how many of the epochs only the last layers learn."""
    return math.floor(epochs * FIRST_STAGE)


def freeze_first_layers(network: Network, *, frozen: bool) -> None:
    """Let the first layers keep their weights, or learn."""
    depth_of = depths(network)
    for name, parameter in network.module.named_parameters():
        parameter.requires_grad_(not frozen or depth_of[name] >= LAST_GROUPS)


def hold_statistics(network: Network, *, pretrained: bool) -> None:
    """Keep the statistics of what is frozen as they are, in a network that is being trained.

    Those of a pretrained network's new head, too: they are the features' of all images.
    """
    heads = tuple(f"{name}." for name in network.heads)
    for name, layer in network.module.named_modules():
        if isinstance(layer, _BatchNorm):
            is_frozen = layer.affine and not layer.weight.requires_grad
            if is_frozen or (pretrained and name.startswith(heads)):
                layer.eval()
