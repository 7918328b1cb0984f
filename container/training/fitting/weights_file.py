"""Weights files as people save them, read without running pickled code."""

import io
import pickle
import pickletools
import re
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Self

import safetensors.torch
import torch
from torch import Tensor

from container.classifier.artifact import WEIGHTS
from container.classifier.errors import UserError
from container.classifier.image_files import visible_entries

ARCHIVES = (".tar.gz", ".tgz")
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".pkl", ".tar", *ARCHIVES)

# The first bytes of files that are not the file that was meant.
MISTAKEN = {
    b"version https://git-lfs": "is a Git LFS pointer, not the file: run `git lfs pull`",
    b"<": "is a web page, not the file: download it again",
    b"\x89HDF": "is an HDF5 file of Keras, not a state dict of PyTorch: use other weights",
}

# In the first pickle of the legacy format of torch.save: its magic number.
LEGACY = b"\xfc\x9cF\xf9 j\xa8P\x19"

# Where a tar has `ustar`.
TAR_MAGIC = slice(257, 262)

# Bytes by which a text file is recognized.
START_BYTES = 1024

# Weights within weights: a checkpoint has the network's state dict in one or two dictionaries.
MAX_DEPTH = 3

# Moving averages of the weights, which are the ones to evaluate, precede the weights themselves.
AVERAGED = re.compile(r"ema|teacher|averag|swa", re.IGNORECASE)

# The legacy format has up to five pickles before the tensors.
MAX_PICKLES = 5

JIT_LOADER = "torch.jit.load({}, 'cpu')"

State = Mapping[str, Tensor]


class _StandIn:
    """Takes the place of every pickled object that is not a tensor: it runs nothing."""

    state: object = None

    def __new__(cls, *_: object, **__: object) -> Self:
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        """Accept and ignore any arguments."""

    def __setstate__(self, state: object) -> None:
        """Keep the attributes: those of a module show that it is one."""
        self.state = state


class _MappingStandIn:
    """As above, for types whose pickles assign items."""

    def __new__(cls, *_: object, **__: object) -> OrderedDict[object, object]:  # type: ignore[misc]
        return OrderedDict()


class _ListStandIn:
    """As above, for types whose pickles append items."""

    def __new__(cls, *_: object, **__: object) -> list[object]:  # type: ignore[misc]
        return []


def find(directory: Path) -> Path:
    """Return the one weights file of a folder; a file is returned as it is.

    Raises:
        UserError: the folder has no weights file, or several.
    """
    if directory.is_file():
        return directory
    visible = [path for path in visible_entries(directory) if path.is_file()]
    files = [path for path in visible if path.name.lower().endswith(SUFFIXES)]
    # Any name will do for a single file: its content shows the format.
    files = files or (visible if len(visible) == 1 else [])
    if len(files) != 1:
        found = ", ".join(path.name for path in files or visible) or "none"
        kinds = ", ".join(SUFFIXES)
        raise UserError(f"the weights channel must hold one file of {kinds}; found {found}")
    return files[0]


def read(path: Path) -> list[State]:
    """Return the state dicts in a file; averages of the weights come first.

    Raises:
        UserError: the file cannot be read, or has no state dict.
    """
    content = _content(path)
    states = [state for _, state in sorted(_states(content, "", 0), key=_is_not_averaged)]
    if states:
        return states
    if _has_module(content, 0):
        raise UserError(f"{path.name} holds a pickled module, {_conversion(path.name)}")
    raise UserError(f"{path.name} is not a state dict: expected tensors by name")


def _content(path: Path) -> object:
    name = path.name
    try:
        with path.open("rb") as file:
            return _read(name, file)
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{name} is not a readable state dict: it has pickled Python objects, "
            f"{_conversion(name)}"
        ) from error
    except Exception as error:
        # torch, safetensors, zipfile and tarfile raise many types on a damaged file.
        message = f"{name} is not a readable state dict: {type(error).__name__}: {error}"
        raise UserError(message[:500]) from error


def _read(name: str, file: IO[bytes]) -> object:
    data = file.read()
    _check_start(name, data)
    if data.startswith(b"\x1f\x8b") or data[TAR_MAGIC] == b"ustar":
        return _read_archive(name, data)
    # The length of the header, and the header, a JSON object.
    if data[8:9] == b"{" or name.lower().endswith(".safetensors"):
        return safetensors.torch.load(data)
    if not data.startswith(b"PK"):
        return _unpickle(data, [io.BytesIO(data)] * MAX_PICKLES)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.namelist()
        if any(member.endswith("/constants.pkl") for member in members):
            raise UserError(f"{name} is a TorchScript program, {_conversion(name, JIT_LOADER)}")
        pickled = next((member for member in members if member.endswith("/data.pkl")), None)
        if pickled is None:
            raise UserError(f"{name} is a zip, but not of torch.save: use the weights file in it")
        # torch does not verify the checksums.
        if damaged := archive.testzip():
            raise UserError(
                f"{name} is damaged: {damaged} in it has another checksum; copy or download it "
                "again"
            )
        return _unpickle(data, [io.BytesIO(archive.read(pickled))])


def _check_start(name: str, data: bytes) -> None:
    """Check that the first bytes can be those of weights."""
    for beginning, mistake in MISTAKEN.items():
        if data.startswith(beginning):
            raise UserError(f"{name} {mistake}")
    if not data:
        raise UserError(f"{name} is empty: copy or download it again")
    start = data[:START_BYTES]
    if start.isascii() and b"\0" not in start and not start.startswith(b"PK"):
        raise UserError(f"{name} is a text file, not weights: use a file of torch.save")
    if data.startswith(b"\x80") and data[8:9] != b"{" and LEGACY not in start:
        raise UserError(f"{name} is a pickle, which is not loaded: save it with torch.save")


def _read_archive(name: str, data: bytes) -> object:
    """Read the weights in a tar, such as the `model.tar.gz` of a training job, ours or another."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:*") as archive:
        # `tar -czf model.tar.gz .` prefixes all names with "./".
        members = {member.name.removeprefix("./"): member for member in archive if member.isfile()}
        found = [item for item in members if item.lower().endswith(SUFFIXES)]
        chosen = WEIGHTS if WEIGHTS in members else found[0] if len(found) == 1 else None
        content = archive.extractfile(members[chosen]) if chosen else None
        if content is None or chosen is None or chosen.endswith(ARCHIVES):
            several = f", but several weights files: {', '.join(found)}" if found else ""
            raise UserError(f"{name} does not contain {WEIGHTS}{several}")
        return _read(PurePosixPath(chosen).name, content)


def _unpickle(data: bytes, pickles: Sequence[IO[bytes]]) -> object:
    """Load a file of `torch.save`, given its pickles; other objects than tensors are stand-ins."""
    stand_ins: list[Callable[..., object] | tuple[Callable[..., object], str]] = [
        (
            _MappingStandIn
            if name.lower().endswith("dict")
            else _ListStandIn
            if name == "collections.deque"
            else _StandIn,
            name,
        )
        for name in _pickled_types(pickles)
    ]
    with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
        # A pickle of a later protocol is rejected, too.
        warnings.simplefilter("ignore", UserWarning)
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _pickled_types(pickles: Sequence[IO[bytes]]) -> set[str]:
    """Return the names of the types and functions in the pickles, without loading them."""
    return {
        # In these pickles, built-in types have their names of Python 2.
        str(argument).replace(" ", ".").replace("__builtin__.", "builtins.")
        for pickle in pickles
        for opcode, argument, _ in pickletools.genops(pickle)
        if opcode.name == "GLOBAL"
    }


def _states(content: object, path: str, depth: int) -> Iterator[tuple[str, State]]:
    """Yield every dictionary of tensors, and its path."""
    if isinstance(content, list | tuple):
        # Such as a state dict and that of the optimizer.
        content = {i: item for i, item in enumerate(content) if isinstance(item, Mapping)}
    if not isinstance(content, Mapping) or depth > MAX_DEPTH:
        return
    tensors = {str(name): item for name, item in content.items() if isinstance(item, Tensor)}
    if tensors:
        yield path, tensors
    for name, item in content.items():
        yield from _states(item, f"{path}[{name!r}]", depth + 1)


def _is_not_averaged(named: tuple[str, State]) -> bool:
    return not AVERAGED.search(named[0])


def _has_module(content: object, depth: int) -> bool:
    if isinstance(content, _StandIn):
        return isinstance(content.state, dict) and "_modules" in content.state
    items = content.values() if isinstance(content, Mapping) and depth <= MAX_DEPTH else ()
    return any(_has_module(item, depth + 1) for item in items)


def _conversion(name: str, loader: str = "torch.load({}, 'cpu', weights_only=False)") -> str:
    """Return how to convert a file of which the module or the state dict is needed."""
    loaded = loader.format(repr(name))
    return (
        "which could run code when it is loaded: convert it where you trust it, with python -c "
        f"\"import torch; w = {loaded}; w = w.get('state_dict', w.get('model', w)) if "
        "isinstance(w, dict) else w; torch.save(w if isinstance(w, dict) else w.state_dict(), "
        "'weights.pth')\""
    )
