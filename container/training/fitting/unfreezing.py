"""Gradual unfreezing and layer-wise learning rates (Howard and Ruder 2018).

The first layers of a pretrained network detect edges and textures, which suit nearly all images;
the last ones are specific to the classes of another data set.
"""

from torch.nn.modules.batchnorm import _BatchNorm

from container.networks.network import Network

# Ratio of the first layer's learning rate to the head's.
FIRST_LAYER_FACTOR = 0.1

# Groups of layers by depth, and the first group that learns in the first stage: the last third.
# The parameters of an optimizer's group are frozen together.
GROUPS, LAST_GROUPS = 6, 4


def depths(network: Network) -> dict[str, int]:
    """Return the depth of each parameter: 0 in the first layers, GROUPS in the head."""
    names = [name for name, _ in network.module.named_parameters()]
    body = [name for name in names if not network.in_head(name)]
    # torchvision's networks name their layers in the order of the forward pass.
    return dict.fromkeys(names, GROUPS) | {
        name: index * GROUPS // len(body) for index, name in enumerate(body)
    }


def learning_rate_factor(depth: int) -> float:
    """Return the factor of the learning rate at a depth."""
    return float(FIRST_LAYER_FACTOR ** (1 - depth / GROUPS))


def freeze_first_layers(network: Network, *, frozen: bool) -> None:
    """Freeze the first layers, or unfreeze all."""
    depth_of = depths(network)
    for name, parameter in network.module.named_parameters():
        parameter.requires_grad_(not frozen or depth_of[name] >= LAST_GROUPS)


def hold_statistics(network: Network, *, pretrained: bool) -> None:
    """Keep the batch normalization statistics of frozen layers in a network in training mode.

    Those of a pretrained network's new head too: they are exact for the training images.
    """
    for name, layer in network.module.named_modules():
        if isinstance(layer, _BatchNorm):
            is_frozen = layer.affine and not layer.weight.requires_grad
            if is_frozen or (pretrained and network.in_head(name)):
                layer.eval()
