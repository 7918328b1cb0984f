"""Pretrained weights from a channel or from torchvision, loaded into a network."""

import logging
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

import torch
import torchvision

from container.classifier.checked_files import sha256_of
from container.classifier.errors import UserError
from container.networks.network import IMAGENET_CLASSES, SMALL, Network, build, known_networks
from container.training.fitting import weights_file
from container.training.fitting.tensor_names import Match, matches
from container.training.fitting.weights_file import AVERAGED, State

logger = logging.getLogger(__name__)

# The largest head's number of weights: heads for other classes have others.
HEAD_WEIGHTS = 5_000_000


def load_channel(network: Network, directory: Path) -> str:
    """Load the weights file of a channel into a network; return its SHA-256.

    A head for another number of classes is skipped; all other tensors must match.

    Raises:
        UserError: the channel does not hold exactly one weights file, the file cannot be read, or
            its weights are of another network.
    """
    path = weights_file.find(directory)
    match = _load(network, weights_file.read(path), path.name)
    sha256 = sha256_of(path)
    logger.info(
        "weights=%s sha256=%s tensors=%d ignored=%d",
        path.name,
        sha256,
        len(match.tensors),
        match.ignored,
    )
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
            f"the pretrained weights of {network.name} cannot be downloaded ({error}): put the "
            'file into the `weights` channel (a folder `weights` next to `train`, and "weights" in '
            "data.channels), or train from scratch with network=small or pretrained=false"
        ) from error
    _load(network, [state], str(weights))
    logger.info("weights=%s source=%s", weights, weights.url)
    return str(weights)


def _load(network: Network, states: Sequence[State], source: str) -> Match:
    """Load the first of several state dicts that is one of the network."""
    found = [matches(network, state) for state in states]
    complete = next(
        (whole for several in found if (whole := [m for m in several if m.is_complete])), None
    )
    if complete is None:
        closest = min((several[0] for several in found), key=lambda match: len(match.missing))
        fitting = _fitting_network(network, states)
        hint = f"they fit {fitting}, so set network={fitting}; " if fitting else ""
        raise UserError(
            f"{source} holds weights of another network than {network.name}: "
            f"{hint}{closest.difference}"
        )
    averaged = [match for match in complete if AVERAGED.search(match.prefix)]
    chosen = averaged if len(averaged) == 1 else complete
    if len(chosen) > 1:
        prefixes = " and ".join(f"`{match.prefix}`" for match in chosen)
        raise UserError(
            f"{source} holds several sets of weights of {network.name}, behind {prefixes}: save "
            "one of them alone"
        )
    for name, tensor in chosen[0].tensors.items():
        if kind := _unusual(tensor):
            raise UserError(f"{source}: {name} has {kind}: save the weights of a loaded network")
        # As float32, in which they are loaded.
        if tensor.is_floating_point() and not torch.isfinite(tensor.float()).all():
            raise UserError(
                f"{source}: {name} has values that are not finite: use weights from before the "
                "training failed"
            )
    # `own` has the version metadata that some layers read.
    own = network.module.state_dict()
    own.update(chosen[0].tensors)
    network.module.load_state_dict(own)
    return chosen[0]


def _unusual(tensor: torch.Tensor) -> str | None:
    """Return what prevents a tensor from being loaded into a network."""
    if tensor.is_meta:
        return "no values (device `meta`)"
    if tensor.is_complex():
        return "complex numbers"
    if tensor.is_quantized:
        return "quantized values"
    return None if tensor.layout == torch.strided else "sparse values"


def _fitting_network(network: Network, states: Sequence[State]) -> str | None:
    """Return the name of another network that one of the state dicts is of."""
    for state in states:
        count = sum(
            tensor.numel() for name, tensor in state.items() if not name.endswith(("_mean", "_var"))
        )
        for name in known_networks():
            if name == network.name:
                continue
            if name != SMALL:
                known = torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"]
                if abs(known - count) > HEAD_WEIGHTS:
                    continue
            # RegNet computes its sizes with tensors, which must have values.
            with torch.device("cpu" if name.startswith("regnet") else "meta"):
                other = build(name, IMAGENET_CLASSES)
            if any(match.is_complete for match in matches(other, state)):
                return name
    return None
