"""Weights with the names of timm (Wightman 2019), as torchvision's networks need them.

Both libraries have these networks, with equal names for ResNet, ResNeXt, DenseNet and Inception.
The converted weights give the same outputs. EfficientNetV2 and timm's networks called `tf_...` pad
images differently, and cannot be converted.
"""

import re
from collections.abc import Iterator, Sequence

from torch import Tensor

from container.networks.network import Network
from container.training.fitting.weights_file import State

Rules = Sequence[tuple[str, str]]

VISION_TRANSFORMER: Rules = (
    (r"^cls_token", "class_token"),
    (r"^pos_embed", "encoder.pos_embedding"),
    (r"^patch_embed\.proj\.", "conv_proj."),
    (r"^blocks\.(\d+)\.", r"encoder.layers.encoder_layer_\1."),
    (r"\.norm([12])\.", r".ln_\1."),
    (r"\.attn\.qkv\.", ".self_attention.in_proj_"),
    (r"\.attn\.proj\.", ".self_attention.out_proj."),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.3."),
    (r"^norm\.", "encoder.ln."),
)

# Stages have odd numbers, and the layers before them even ones.
STAGES = {number: (2 * number, 2 * number + 1) for number in range(4)}

CONVNEXT: Rules = (
    (r"^stem\.", "features.0."),
    *((rf"^stages\.{n}\.downsample\.", f"features.{low}.") for n, (low, _) in STAGES.items()),
    *((rf"^stages\.{n}\.blocks\.", f"features.{high}.") for n, (_, high) in STAGES.items()),
    (r"\.gamma$", ".layer_scale"),
    (r"\.conv_dw\.", ".block.0."),
    (r"(\d)\.norm\.", r"\1.block.2."),
    (r"\.mlp\.fc1\.", ".block.3."),
    (r"\.mlp\.fc2\.", ".block.5."),
    (r"^head\.norm\.", "classifier.0."),
)

SWIN: Rules = (
    (r"^patch_embed\.proj\.", "features.0.0."),
    (r"^patch_embed\.norm\.", "features.0.2."),
    *((rf"^layers\.{n}\.downsample\.", f"features.{low}.") for n, (low, _) in STAGES.items()),
    *((rf"^layers\.{n}\.blocks\.", f"features.{high}.") for n, (_, high) in STAGES.items()),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.3."),
)

REGNET: Rules = (
    (r"^stem\.conv\.", "stem.0."),
    (r"^stem\.bn\.", "stem.1."),
    *(
        (rf"^s(\d)\.b{n + 1}\.", rf"trunk_output.block\1.block\1-{n}.")
        for n in range(32)  # More than any stage has.
    ),
    *((rf"\.conv{n}\.conv\.", f".f.{letter}.0.") for n, letter in enumerate("abc", 1)),
    *((rf"\.conv{n}\.bn\.", f".f.{letter}.1.") for n, letter in enumerate("abc", 1)),
    (r"\.se\.", ".f.se."),
    (r"\.downsample\.conv\.", ".proj.0."),
    (r"\.downsample\.bn\.", ".proj.1."),
)

VGG: Rules = (
    (r"^pre_logits\.fc1\.", "classifier.0."),
    (r"^pre_logits\.fc2\.", "classifier.3."),
)

# Families by a tensor that only their files have.
FAMILIES = {
    "blocks.0.attn.qkv.weight": VISION_TRANSFORMER,
    "stages.0.blocks.0.conv_dw.weight": CONVNEXT,
    "layers.0.blocks.0.attn.qkv.weight": SWIN,
    "s1.b1.conv1.conv.weight": REGNET,
    "pre_logits.fc1.weight": VGG,
}

# The family of MobileNet, MNASNet and EfficientNet: layers of its four kinds of blocks, in order.
STEM = "conv_stem.weight"
EXCITATION = ("se.conv_reduce", "se.conv_expand")
BLOCKS = (
    ("conv_dw", "bn1", *EXCITATION, "conv_pw", "bn2"),
    ("conv_pw", "bn1", "conv_dw", "bn2", *EXCITATION, "conv_pwl", "bn3"),
    ("conv", "bn1"),
)

# The layer of the classes of timm: the network has its own new head.
HEAD = re.compile(r"(head|head\.fc|fc|classifier)\.(weight|bias)")

# timm's batch normalization has this epsilon.
EPSILON = 1e-5


def conversions(network: Network, state: State) -> Iterator[tuple[str, State]]:
    """Yield each prefix of timm's names, and its tensors, renamed for a torchvision network."""
    for marker in (*FAMILIES, STEM):
        for name in state:
            if not f".{name}".endswith(f".{marker}"):
                continue
            prefix = name.removesuffix(marker)
            below = {
                key.removeprefix(prefix): tensor
                for key, tensor in state.items()
                if key.startswith(prefix) and not HEAD.fullmatch(key.removeprefix(prefix))
            }
            rules = FAMILIES.get(marker)
            if rules is None:
                yield prefix, _by_position(network, below)
            else:
                yield prefix, _renamed(network, below, rules)


def _renamed(network: Network, state: State, rules: Rules) -> State:
    if "layers.0.downsample.norm.weight" in state:
        # In Swin's own files and earlier ones of timm, a stage ends with the next one's reduction.
        shifted = ((rf"^layers\.{n}\.downsample\.", f"features.{2 * n + 2}.") for n in STAGES)
        rules = (*shifted, *rules)
    own = network.module.state_dict()
    renamed = {}
    for name, tensor in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)  # noqa: PLW2901
        renamed[name] = _shaped(tensor, own.get(name))
    return renamed


def _by_position(network: Network, state: State) -> State:
    """Rename the layers of MobileNet and its like, whose order is the same in both libraries."""
    own = network.module.state_dict()
    targets = [name for name in _layers(own) if not network.in_head(f"{name}.")]
    blocks: dict[tuple[int, int], list[str]] = {}
    for layer in _layers(state):
        if match := re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(.+)", layer):
            blocks.setdefault((int(match[1]), int(match[2])), []).append(match[3])
    sources = ["conv_stem", "bn1"]
    for (stage, number), layers in sorted(blocks.items()):
        order = next((order for order in BLOCKS if {*layers} <= {*order}), ())
        sources += [f"blocks.{stage}.{number}.{name}" for name in order if name in layers]
    sources += [name for name in ("conv_head", "bn2") if f"{name}.weight" in state]
    if len(sources) != len(targets):
        return state
    names = dict(zip(sources, targets, strict=True))
    renamed = {}
    for name, tensor in state.items():
        layer, _, parameter = name.rpartition(".")
        target = f"{names.get(layer, layer)}.{parameter}"
        renamed[target] = _shaped(tensor, own.get(target))
        if parameter == "running_var" and layer in names:
            # The same scale with another epsilon.
            norm = network.module.get_submodule(names[layer])
            renamed[target] = tensor + (EPSILON - float(getattr(norm, "eps", EPSILON)))
    return renamed


def _layers(state: State) -> list[str]:
    return list(dict.fromkeys(name.rpartition(".")[0] for name in state))


def _shaped(tensor: Tensor, own: Tensor | None) -> Tensor:
    """Return a 1 x 1 convolution as a linear layer's weights, or a scale with two more axes."""
    if own is None or (*tensor.shape[:1], tensor.numel()) != (*own.shape[:1], own.numel()):
        return tensor
    return tensor.reshape(own.shape)
