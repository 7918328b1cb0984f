"""Finds a network's tensors in a state dict, under other names and behind prefixes."""

import itertools
import re
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from container.classifier.errors import UserError
from container.networks.network import AUXILIARY, Network
from container.training.fitting.timm_names import conversions
from container.training.fitting.weights_file import State

# Parts of names that wrappers of a module or of its layers add: DataParallel and
# DistributedDataParallel, torch.compile, FSDP and activation checkpointing.
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}

# The files of torchvision have earlier names of these layers.
RENAMED = (
    (re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)"), r"\1\2"),
    (re.compile(r"\.mlp\.linear_1\."), ".mlp.0."),
    (re.compile(r"\.mlp\.linear_2\."), ".mlp.3."),
)

# Computed by the network itself, or by the profiler thop: files may lack or have them.
COMPUTED = (
    "num_batches_tracked", "relative_position_index", "attn_mask", "total_ops", "total_params",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Match:
    """The tensors of a state dict that are a network's, by the network's names."""

    tensors: State
    prefix: str
    missing: list[str]
    unknown: list[str]
    misshapen: list[str]
    ignored: int
    """Number of tensors that are of no layer of the network, such as another head's."""

    @property
    def is_complete(self) -> bool:
        """Whether every tensor of the network was found, and no other one of its layers."""
        return not (self.missing or self.unknown or self.misshapen)

    @property
    def difference(self) -> str:
        """The number of tensors that differ, with examples."""
        wrong = {
            "missing": self.missing,
            "unknown": self.unknown,
            "with another shape": self.misshapen,
        }
        counts = ", ".join(f"{len(names)} tensors {how}" for how, names in wrong.items() if names)
        examples = ", ".join(sorted(itertools.chain(*wrong.values()))[:3])
        return f"{counts}, for example {examples}"


def matches(network: Network, state: State) -> list[Match]:
    """Return the matches of a network and a state dict, the best first.

    There are several if the dictionary holds several networks, or if nothing matches well.
    """
    state = {_plain(name): tensor for name, tensor in state.items()}
    found: list[Match] = []
    for several in _attempts(network, state):
        found += several
        if any(match.is_complete for match in several):
            break
    return sorted(found, key=lambda match: len(match.missing) + len(match.misshapen))


def _attempts(network: Network, state: State) -> Iterator[list[Match]]:
    """Yield matches by the network's own names, by the numbers of its children, and by timm's."""
    own = {*network.module.state_dict()}
    for names in ({name: name for name in own}, _by_index(network)):
        yield [
            _match(network, {names.get(name, name): below[name] for name in below}, prefix)
            for prefix, below in _below_prefixes({*names}, state)
        ]
    # Every layer counts: timm has variants with further ones.
    layers = {name.partition(".")[0] for _, below in conversions(network, state) for name in below}
    yield [
        _match(network, renamed, prefix, layers) for prefix, renamed in conversions(network, state)
    ]


def _plain(name: str) -> str:
    """Return a name without the parts of wrappers, as torchvision has it today."""
    name = ".".join(part for part in name.split(".") if part not in WRAPPERS)
    for pattern, replacement in RENAMED:
        name = pattern.sub(replacement, name)
    return name


def _by_index(network: Network) -> dict[str, str]:
    """Return the names that `nn.Sequential(*network.children())` gives, with the network's own."""
    children = [name for name, _ in network.module.named_children()]
    return {
        f"{children.index(child)}.{rest}": name
        for name in network.module.state_dict()
        for child, _, rest in [name.partition(".")]
        if child in children
    }


def _below_prefixes(names: set[str], state: State) -> list[tuple[str, State]]:
    """Return the prefixes behind which the most of the names are, and the tensors there."""
    counts = Counter(
        name.removesuffix(suffix) for name in state for suffix in _suffixes(name) if suffix in names
    )
    best = max(counts.values(), default=0)
    prefixes = [prefix for prefix, count in counts.items() if count == best] or [""]
    return [
        (prefix, {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)})
        for prefix in prefixes
    ]


def _suffixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]


def _match(network: Network, state: State, prefix: str, layers: Collection[str] = ()) -> Match:
    """Compare names; those below other `layers` than the network's and these are ignored."""
    own = network.module.state_dict()
    layers = {*layers, *(name.partition(".")[0] for name in own)}
    if isinstance(network.module, VisionTransformer):
        state = _at_size(network.module, state)
    # A head for other classes has other shapes: the network keeps its new head.
    tensors = {
        name: tensor
        for name, tensor in state.items()
        if (name in own and (not network.in_head(name) or tensor.shape == own[name].shape))
    }
    unknown = [
        name
        for name in state.keys() - own.keys()
        if name.partition(".")[0] in layers
        and not network.in_head(name)
        and not name.startswith(AUXILIARY)
        and not name.endswith(COMPUTED)
    ]
    missing = [
        name
        for name in own.keys() - tensors.keys()
        if not network.in_head(name) and not name.endswith(COMPUTED)
    ]
    misshapen = [name for name, tensor in tensors.items() if tensor.shape != own[name].shape]
    return Match(tensors, prefix, missing, unknown, misshapen, len(state) - len(tensors))


def _at_size(network: VisionTransformer, state: State) -> State:
    """Interpolate position embeddings to the network's image size (Dosovitskiy et al. 2020)."""
    embedding = state.get("encoder.pos_embedding")
    if embedding is None or embedding.shape == network.encoder.pos_embedding.shape:
        return state
    try:
        resized: State = interpolate_embeddings(
            network.image_size, network.patch_size, OrderedDict(state)
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the position embeddings of the weights cannot be resized: {error}"
        ) from error
    return resized
