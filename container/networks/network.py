"""The networks: torchvision's, by name and with a new head, and our small one."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torchvision
from torch import Tensor, nn

from container.classifier.errors import UserError

SMALL = "small"

# ImageNet's, as fractions of a pixel's range: torchvision's weights expect them.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

IMAGENET_CLASSES = 1000

INCEPTIONS = ("googlenet", "inception_v3")
INCEPTION_SETTINGS = {
    # Google's weights expect another mean and standard deviation.
    "transform_input": True,
    # No auxiliary heads: their losses are not used.
    "aux_logits": False,
    # The default; torchvision warns unless it is set.
    "init_weights": True,
}
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")


class Classifier(nn.Module):
    """A network that normalizes its input: scale, subtract the mean, divide by std."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, flips: Sequence[Sequence[int]] = ()) -> None:
        """Put the normalization before `network`.

        In evaluation mode, logits are averaged over the images and their `flips`, each given by
        its axes of (N, 3, H, W).
        """
        super().__init__()
        self.network, self.flips = network, flips
        self.register_buffer("mean", 255 * torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(STD).view(3, 1, 1), persistent=False)

    def normalize(self, images: Tensor) -> Tensor:
        """Return the input of `network` for images (N, 3, H, W) of 0 to 255."""
        return (images - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, C) for images (N, 3, H, W) of 0 to 255."""
        images = self.normalize(images)
        logits: Tensor = self.network(images)
        if self.training or not self.flips:
            return logits
        views = [self.network(images.flip(tuple(axes))) for axes in self.flips]
        return torch.stack([logits, *views]).mean(dim=0)


class ServedClassifier(nn.Module):
    """The computation of the ONNX file: uint8 pixels to probabilities."""

    def __init__(self, classifier: Classifier, temperature: float) -> None:
        """Add softmax at `temperature` to `classifier`."""
        super().__init__()
        self.classifier = classifier
        self.temperature = temperature

    def forward(self, pixels: Tensor) -> Tensor:
        """Return probabilities (N, C) for uint8 pixels (N, H, W, 3)."""
        logits = self.classifier(pixels.permute(0, 3, 1, 2).float())
        return torch.softmax(logits / self.temperature, dim=1)


class Residual(nn.Module):
    """Two convolutions with a residual connection."""

    def __init__(self, channels: int) -> None:
        """Have `channels` input and output channels."""
        super().__init__()
        self.body = nn.Sequential(convolution(channels, channels), convolution(channels, channels))

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the same shape."""
        result: Tensor = features + self.body(features)
        return result


class Halving(nn.Module):
    """Max pooling by two, skipped if the height or width is one pixel."""

    def forward(self, features: Tensor) -> Tensor:
        """Return features (N, C, H // 2, W // 2)."""
        if min(features.shape[2:]) == 1:
            return features
        return nn.functional.max_pool2d(features, 2)


def convolution(
    channels_in: int, channels_out: int, *, size: int = 3, stride: int = 1
) -> nn.Sequential:
    """Return a convolution with batch normalization and ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, size, stride, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


def small_network(num_classes: int) -> nn.Sequential:
    """Return our network for training from scratch: eleven layers, 1.9 million parameters.

    The architecture follows the short networks of the DAWNBench contest, with residual connections
    (He et al. 2015). Its first layer halves the image: at 128 pixels it costs as much as such a
    network at 64. It accepts images of any size from 16 pixels.
    """
    return nn.Sequential(
        OrderedDict(
            stem=convolution(3, 32, size=4, stride=2),
            stage1=nn.Sequential(Halving(), convolution(32, 64)),
            stage2=nn.Sequential(Halving(), Residual(64), convolution(64, 128)),
            stage3=nn.Sequential(Halving(), Residual(128), convolution(128, 256)),
            stage4=nn.Sequential(Halving(), Residual(256)),
            pool=nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten()),
            head=nn.Linear(256, num_classes),
        )
    )


def known_networks() -> Sequence[str]:
    """Return the names of all networks."""
    return [SMALL, *torchvision.models.list_models(module=torchvision.models)]


@dataclass(frozen=True, slots=True)
class Network:
    """A network and its metadata."""

    name: str
    module: nn.Module
    heads: tuple[str, ...]
    """Names of the layers whose shape depends on the number of classes."""

    def in_head(self, name: str) -> bool:
        """Return whether a parameter, or a layer within another one, is part of a head."""
        return name.startswith(tuple(f"{head}." for head in self.heads))


def build(name: str, num_classes: int, image_size: int = 224) -> Network:
    """Build a network with random weights and a head for `num_classes`.

    Most networks accept images of any size; a vision transformer is built for `image_size` pixels.

    Raises:
        UserError: the name is unknown, or the network does not accept this size.
    """
    if name == SMALL:
        return Network(name, small_network(num_classes), heads=("head",))
    if name not in known_networks():
        raise UserError(f"unknown network {name!r}; known are {', '.join(known_networks())}")
    settings: dict[str, object] = dict(INCEPTION_SETTINGS) if name in INCEPTIONS else {}
    if name.startswith("vit_"):
        settings["image_size"] = image_size
    try:
        module: nn.Module = torchvision.models.get_model(name, weights=None, **settings)
    except AssertionError as error:
        raise UserError(
            f"{name} does not accept images of {image_size} x {image_size} pixels: {error}"
        ) from error
    return Network(name, module, replace_heads(module, num_classes))


def check_input(network: Network, batch_size: int, image_size: int) -> None:
    """Check that the network can be trained on such a batch, by computing shapes alone.

    Raises:
        UserError: it cannot be trained on such a batch.
    """
    classifier = Classifier(network.module)
    state = {k: v.to("meta") for k, v in classifier.state_dict(keep_vars=True).items()}
    state |= {name: buffer.to("meta") for name, buffer in classifier.named_buffers()}
    images = torch.empty(batch_size, 3, image_size, image_size, device="meta")
    try:
        with torch.no_grad():
            torch.func.functional_call(classifier.train(), state, (images,))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UserError(
            f"{network.name} cannot learn from batches of {batch_size} images of {image_size} x "
            f"{image_size} pixels ({error}): change image_size or batch_size"
        ) from error


def replace_heads(network: nn.Module, num_classes: int) -> tuple[str, ...]:
    """Replace every head, recognized by ImageNet's 1,000 outputs, by one of `num_classes` outputs.

    A new head standardizes its input first: the scale of pretrained features differs a hundredfold
    between networks, and so would the best learning rate of the head.

    Returns:
        The names of the heads within the network.
    """
    if isinstance(network, torchvision.models.SqueezeNet):
        # SqueezeNet's head is a convolution, a ReLU and pooling: a class with negative outputs for
        # all images would have no gradient. The new head keeps the name that weights files have.
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        network.classifier = nn.Sequential(pool, nn.Linear(512, IMAGENET_CLASSES))
    names = []
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Linear) and module.out_features == IMAGENET_CLASSES:
            head = nn.Linear(module.in_features, num_classes)
            standardize = nn.BatchNorm1d(module.in_features, affine=False)
            # Zeros start with equal probabilities; random weights would have to be unlearned.
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
            network.set_submodule(name, nn.Sequential(standardize, head))
            names.append(name)
    return tuple(names)
