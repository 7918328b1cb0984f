"""Reader of smdebug's tensor files, from this project or any SageMaker job."""

import json
import re
import struct
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np

from container.classifier.errors import UserError
from container.debugger.reading import protobuf_bridge
from container.debugger.reading.records import (
    LEARNING_RATE_FILE,
    Array,
    DamagedTensorError,
    LearningRate,
    Record,
    Records,
)

protobuf_bridge.install()
from google.protobuf.message import DecodeError  # noqa: E402 - must follow install()
from smdebug.core.tfevent.proto.event_pb2 import Event  # noqa: E402 - must follow install()

# In bytes. One step of VGG-16's whole weights and gradients has 1.1 GB in tensors of 400 MB.
MAX_INDEX, MAX_TENSOR = 64 * 2**20, 1024 * 2**20

_HEADER = struct.Struct("<QI")

_DTYPES = {
    1: np.float32,
    2: np.float64,
    3: np.int32,
    4: np.uint8,
    5: np.int16,
    6: np.int8,
    9: np.int64,
    10: np.bool_,
    17: np.uint16,
    19: np.float16,
    22: np.uint32,
    23: np.uint64,
}

_INDEX = re.compile(r"(?P<order>\d+)_(?P<worker>.+)\.json")
# As in `smdebug/reductions/abs_mean/gradient/ResNet_conv1.weight`.
PREFIX = "smdebug/reductions/"


class TensorFiles:
    """The records in a directory, which grow while a training writes them."""

    def __init__(self, directory: Path) -> None:
        """Set the directory, which has smdebug's folders index and events."""
        self.directory = directory.resolve()
        self._read: set[Path] = set()
        self._tensors: dict[tuple[str, str], list[Record]] = {}
        self._times: dict[int, tuple[int, float]] = {}

    def records(self) -> Records:
        """Return the records that exist by this time, of the first recording process.

        Raises:
            UserError: a file is damaged.
        """
        paths = sorted(set(self.directory.glob("index/*/*.json")) - self._read)
        matches = {path: match for path in paths if (match := _INDEX.fullmatch(path.name))}
        first = min((match["worker"] for match in matches.values()), default="")
        for path, match in matches.items():
            if match["worker"] == first:
                self._read.add(path)
                self._add(path, int(match["order"]))
        for records in self._tensors.values():
            records.sort(key=lambda record: record.order)
        times = [self._times[order] for order in sorted(self._times)]
        return Records(self._tensors, times, self._learning_rate())

    def _learning_rate(self) -> LearningRate:
        path = self.directory / LEARNING_RATE_FILE
        found = path.read_bytes() if path.is_file() else b""
        return next((phase for phase in get_args(LearningRate) if phase.encode() == found), "low")

    def _add(self, path: Path, order: int) -> None:
        try:
            if path.stat().st_size > MAX_INDEX:
                raise ValueError("it is larger than any index file")
            document = json.loads(path.read_text(encoding="utf-8"))
            mode, step = str(document["meta"]["mode"]), int(document["meta"]["mode_step"])
            if "event_file_name" not in document["meta"]:
                return
            event_file = str(document["meta"]["event_file_name"])
            events = (self.directory / event_file).resolve()
            if not events.is_relative_to(self.directory):
                raise ValueError(f"it refers to a file outside of the folder: {event_file!r}")
            found: dict[str, Record] = {}
            for entry in document["tensor_payload"]:
                name, kind = _split(str(entry["tensorname"]))
                record = found.setdefault(name, Record(order, step, {}))
                place = (events, int(entry["start_idx"]), int(entry["length"]))
                record.loaders[kind] = partial(_load, *place)
            first = document["tensor_payload"][0]
            time = _event(events, int(first["start_idx"]), int(first["length"])).wall_time
        except (OSError, ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
            raise UserError(f"{path} is damaged: {type(error).__name__}: {error}") from None
        self._times[order] = (step, float(time))
        for name, record in found.items():
            self._tensors.setdefault((name, mode), []).append(record)


def _split(name: str) -> tuple[str, str]:
    """Return a tensor's name and its reduction, which is empty for the whole tensor."""
    if not name.startswith(PREFIX):
        return name, ""
    kind, _, tensor = name.removeprefix(PREFIX).partition("/")
    return tensor, kind


def _event(path: Path, start: int, length: int) -> Any:  # noqa: ANN401 - smdebug has no types
    if not 0 < length <= MAX_TENSOR:
        raise ValueError(f"a record of {length} bytes")
    with path.open("rb") as file:
        file.seek(start)
        data = file.read(length)
    try:
        (size, _) = _HEADER.unpack_from(data)
        return Event.FromString(data[_HEADER.size : _HEADER.size + size])
    except (struct.error, DecodeError) as error:
        raise ValueError(f"{path.name} holds no tensor at {start}: {error}") from None


def _load(path: Path, start: int, length: int) -> Array:
    """Read one tensor."""
    try:
        (value,) = _event(path, start, length).summary.value
        shape = [dim.size for dim in value.tensor.tensor_shape.dim]
        dtype = _DTYPES[value.tensor.dtype]
        return np.frombuffer(value.tensor.tensor_content, dtype).reshape(shape)
    except (OSError, ValueError, KeyError) as error:
        raise DamagedTensorError(
            f"{path.name} at {start}: {type(error).__name__}: {error}"
        ) from None
