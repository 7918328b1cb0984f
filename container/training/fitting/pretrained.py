"""Pretrained weights from a channel or from torchvision, read without running pickled code."""

import io
import itertools
import logging
import re
import tarfile
from collections import OrderedDict
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import IO

import safetensors.torch
import torch
import torchvision
from torch import Tensor
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from container.classifier.artifact import WEIGHTS
from container.classifier.checked_files import sha256_of
from container.classifier.errors import UserError
from container.networks.network import AUXILIARY, SMALL, Network

logger = logging.getLogger(__name__)

SUFFIXES = (".safetensors", ".pth", ".pt", ".tar.gz")

# The files of torchvision have earlier names of these layers.
RENAMED = (
    (re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)"), r"\1\2"),
    (re.compile(r"\.mlp\.linear_1\."), ".mlp.0."),
    (re.compile(r"\.mlp\.linear_2\."), ".mlp.3."),
)


def load_channel(network: Network, directory: Path) -> str:
    """Load the weights file of a channel into a network; return its SHA-256.

    The file is a state dict as `.pth` or `.safetensors`, or the `model.tar.gz` of an earlier job.
    A head for another number of classes is skipped; all other tensors must match.

    Raises:
        UserError: the channel does not hold exactly one such file, the file cannot be read, or its
            weights are of another network.
    """
    files = [
        path
        for path in sorted(directory.rglob("*"))
        if path.name.endswith(SUFFIXES) and not path.name.startswith(".")
    ]
    if len(files) != 1:
        found = ", ".join(path.name for path in files) or "none"
        kinds = ", ".join(SUFFIXES)
        raise UserError(f"the weights channel must hold one file of {kinds}; found {found}")
    path = files[0]
    state = _read(path)
    _load(network, state, path.name)
    sha256 = sha256_of(path)
    logger.info("weights=%s sha256=%s tensors=%d", path.name, sha256, len(state))
    return sha256


def download(network: Network) -> str:
    """Load torchvision's weights into a network; return their name.

    Raises:
        UserError: torchvision has none, or they cannot be downloaded.
    """
    if network.name == SMALL:
        raise UserError(
            f"torchvision has no weights of `{SMALL}`: add a `weights` channel with those of an "
            "earlier job, or remove pretrained=true"
        )
    weights = torchvision.models.get_model_weights(network.name).DEFAULT
    try:
        state = weights.get_state_dict(check_hash=True)
    except (OSError, HTTPException, RuntimeError) as error:
        # RuntimeError: the checksum is wrong.
        raise UserError(
            f"the pretrained weights of {network.name} cannot be downloaded ({error}): add a "
            "`weights` channel with the file, or set pretrained=false to train from scratch"
        ) from error
    _load(network, state, str(weights))
    logger.info("weights=%s source=%s", weights, weights.url)
    return str(weights)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        with path.open("rb") as file:
            state = _read_state(path.name, file)
    except UserError:
        raise
    except Exception as error:
        # torch, safetensors and tarfile raise many types on a damaged file.
        message = f"{path.name} is not a readable state dict: {type(error).__name__}: {error}"
        raise UserError(message[:500]) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{path.name} is not a state dict: expected tensors by name")
    return {str(name).removeprefix("module."): tensor for name, tensor in state.items()}


def _read_state(name: str, file: IO[bytes]) -> object:
    if name.endswith(".safetensors"):
        return safetensors.torch.load(file.read())
    if name.endswith(".tar.gz"):
        with tarfile.open(fileobj=file, mode="r:gz") as archive:
            # `tar -czf model.tar.gz .` prefixes all names with "./".
            names = {member.name.removeprefix("./"): member for member in archive}
            weights_file = archive.extractfile(names[WEIGHTS]) if WEIGHTS in names else None
            if weights_file is None:
                raise UserError(f"{name} does not contain {WEIGHTS}")
            return safetensors.torch.load(weights_file.read())
    # weights_only: pickles that could run code are rejected.
    return torch.load(io.BytesIO(file.read()), map_location="cpu", weights_only=True)


def _load(network: Network, state: Mapping[str, Tensor], source: str) -> None:
    state = {
        _current_name(name): tensor
        for name, tensor in state.items()
        if not name.startswith(AUXILIARY)
    }
    own = network.module.state_dict()
    if isinstance(network.module, VisionTransformer):
        state = _at_size(network.module, state)
    # A head for other classes has other shapes: the network keeps its new head.
    matching = {
        name: tensor
        for name, tensor in state.items()
        if not network.in_head(name) or (name in own and tensor.shape == own[name].shape)
    }
    wrong = {
        "missing": [
            name
            for name in own.keys() - matching.keys()
            if not network.in_head(name) and not name.endswith("num_batches_tracked")
        ],
        "unknown": list(matching.keys() - own.keys()),
        "with another shape": [
            name for name in matching.keys() & own.keys() if matching[name].shape != own[name].shape
        ],
    }
    if any(wrong.values()):
        counts = ", ".join(f"{len(names)} tensors {how}" for how, names in wrong.items())
        examples = ", ".join(sorted(itertools.chain(*wrong.values()))[:3])
        raise UserError(
            f"{source} holds weights of another network than {network.name}: {counts}, "
            f"for example {examples}"
        )
    # `own` has the version metadata that some layers read.
    own.update(matching)
    network.module.load_state_dict(own)


def _at_size(network: VisionTransformer, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Interpolate position embeddings to the network's image size (Dosovitskiy et al. 2020)."""
    embedding = state.get("encoder.pos_embedding")
    if embedding is None or embedding.shape == network.encoder.pos_embedding.shape:
        return state
    try:
        resized: Mapping[str, Tensor] = interpolate_embeddings(
            network.image_size, network.patch_size, OrderedDict(state)
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the position embeddings of the weights cannot be resized: {error}"
        ) from error
    return resized


def _current_name(name: str) -> str:
    for pattern, replacement in RENAMED:
        name = pattern.sub(replacement, name)
    return name
