"""Pretrained weights: from a channel or from torchvision, never unpickled as code."""

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
from container.classifier.artifact_files import sha256_of
from container.classifier.errors import UserError
from container.networks.network import AUXILIARY, SMALL, Network

logger = logging.getLogger(__name__)

SUFFIXES = (".safetensors", ".pth", ".pt", ".tar.gz")

# torchvision's files are older than its names of these layers.
RENAMED = (
    (re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)"), r"\1\2"),
    (re.compile(r"\.mlp\.linear_1\."), ".mlp.0."),
    (re.compile(r"\.mlp\.linear_2\."), ".mlp.3."),
)


def load_channel(network: Network, directory: Path) -> str:
    """Load the one weights file of a channel into a network.

    A state dict as `.pth` or `.safetensors`, or the `model.tar.gz` of an earlier job. A head of
    another number of classes is left out; everything else must fit.

    Returns:
        The file's SHA-256.

    Raises:
        UserError: there is not one such file, it cannot be read, or it is of another network.
    """
    files = [
        path
        for path in sorted(directory.rglob("*"))
        if path.name.endswith(SUFFIXES) and not path.name.startswith(".")
    ]
    if len(files) != 1:
        found = ", ".join(path.name for path in files) or "none"
        kinds = ", ".join(SUFFIXES)
        message = f"the weights channel must hold one file of {kinds}; found {found}"
        raise UserError(message)
    path = files[0]
    state = _read(path)
    _load(network, state, path.name)
    sha256 = sha256_of(path)
    logger.info("weights=%s sha256=%s tensors=%d", path.name, sha256, len(state))
    return sha256


def download(network: Network) -> str:
    """Load torchvision's own weights.

    Returns:
        Their name.

    Raises:
        UserError: there are none, or they cannot be downloaded.
    """
    if network.name == SMALL:
        message = (
            f"`{SMALL}` has no pretrained weights of its own: give the job a `weights` channel "
            "with those of an earlier job, or leave pretrained=true away"
        )
        raise UserError(message)
    weights = torchvision.models.get_model_weights(network.name).DEFAULT
    try:
        state = weights.get_state_dict(check_hash=True)
    except (OSError, HTTPException, RuntimeError) as error:
        # The last is a file whose checksum is wrong.
        message = (
            f"the pretrained weights of {network.name} cannot be downloaded ({error}): give the "
            "job a `weights` channel with the file, or set pretrained=false to start from scratch"
        )
        raise UserError(message) from error
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
        # torch, safetensors and tarfile each raise many kinds on a damaged file.
        message = f"{path.name} is no readable state dict: {type(error).__name__}: {error}"
        raise UserError(message[:500]) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        message = f"{path.name} holds no state dict: expected names with tensors"
        raise UserError(message)
    return {str(name).removeprefix("module."): tensor for name, tensor in state.items()}


def _read_state(name: str, file: IO[bytes]) -> object:
    if name.endswith(".safetensors"):
        return safetensors.torch.load(file.read())
    if name.endswith(".tar.gz"):
        with tarfile.open(fileobj=file, mode="r:gz") as archive:
            # `tar -czf model.tar.gz .` puts "./" before every name.
            names = {member.name.removeprefix("./"): member for member in archive}
            file_within = archive.extractfile(names[WEIGHTS]) if WEIGHTS in names else None
            if file_within is None:
                message = f"{name} holds no {WEIGHTS}"
                raise UserError(message)
            return safetensors.torch.load(file_within.read())
    # weights_only: a pickle that could call something is refused.
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
    heads = tuple(f"{name}." for name in network.heads)
    # Weights for other classes come with another head: ours stays as it is then.
    fitting = {
        name: tensor
        for name, tensor in state.items()
        if not name.startswith(heads) or (name in own and tensor.shape == own[name].shape)
    }
    wrong = {
        "missing": [
            name
            for name in own.keys() - fitting.keys()
            if not name.startswith(heads) and not name.endswith("num_batches_tracked")
        ],
        "unknown": list(fitting.keys() - own.keys()),
        "of another shape": [
            name for name in fitting.keys() & own.keys() if fitting[name].shape != own[name].shape
        ],
    }
    if any(wrong.values()):
        counts = ", ".join(f"{len(names)} tensors {how}" for how, names in wrong.items())
        examples = ", ".join(sorted(itertools.chain(*wrong.values()))[:3])
        message = (
            f"{source} holds weights of another network than {network.name}: {counts}, "
            f"for example {examples}"
        )
        raise UserError(message)
    # Into our own, which holds the version numbers that some layers ask for.
    own.update(fitting)
    network.module.load_state_dict(own)


def _at_size(network: VisionTransformer, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return weights whose places suit the network's image size (Dosovitskiy et al. 2020)."""
    places = state.get("encoder.pos_embedding")
    if places is None or places.shape == network.encoder.pos_embedding.shape:
        return state
    try:
        resized: Mapping[str, Tensor] = interpolate_embeddings(
            network.image_size, network.patch_size, OrderedDict(state)
        )
    except (RuntimeError, ValueError) as error:
        message = f"the weights are of no vision transformer that can be resized: {error}"
        raise UserError(message) from error
    return resized


def _current_name(name: str) -> str:
    for pattern, replacement in RENAMED:
        name = pattern.sub(replacement, name)
    return name
