"""smdebug 1.0.34 with fixes for current NumPy, protobuf and PyTorch, and for full disks.

Only this module imports smdebug's hook; `tensor_files` imports its event messages. It replaces
private names, which are stable because 1.0.34 is the last release; another version raises
ImportError.
"""

import atexit
import contextlib
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from container.debugger.reading import protobuf_bridge

VERSION = "1.0.34"

# A file that cannot exist. smdebug's own profiler evaluates its settings as Python, and smdebug
# writes files into the checkpoint folder.
NOWHERE = f"{os.devnull}/nothing"
VARIABLES = {
    "CHECKPOINT_CONFIG_FILE_PATH": NOWHERE,
    "SMDEBUG_LOG_LEVEL": "warning",
    "SMPROFILER_CONFIG_PATH": NOWHERE,
}

if metadata.version("smdebug") != VERSION:
    raise ImportError(f"smdebug {VERSION} is required, {metadata.version('smdebug')} is installed")

protobuf_bridge.install()
# smdebug reads these variables on import.
with mock.patch.dict(os.environ, VARIABLES), warnings.catch_warnings():
    # It uses deprecated functions of Python.
    warnings.simplefilter("ignore")
    import smdebug.core.singleton_utils
    import smdebug.core.tfevent.util
    import smdebug.core.writer
    from smdebug.core.collection import SCALAR_COLLECTIONS
    from smdebug.core.locations import TensorLocation
    from smdebug.core.modes import ModeKeys
    from smdebug.core.reductions import get_reduction_tensor_name
    from smdebug.core.tfevent.event_file_writer import EventFileWriter
    from smdebug.core.tfevent.events_writer import EventsWriter
    from smdebug.core.tfevent.index_file_writer import EventWithIndex
    from smdebug.core.tfevent.proto.event_pb2 import Event
    from smdebug.core.utils import get_relative_event_file_path, parse_worker_name_from_file
    from smdebug.pytorch.hook import Hook, profiler_config_parser

__all__ = ["VARIABLES", "Event", "Hook", "ModeKeys", "TensorHook", "forget_hook"]

_KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "min": torch.min,
    "max": torch.max,
    "mean": torch.mean,
    "std": torch.std,
    "variance": torch.var,
    "sum": torch.sum,
    "prod": torch.prod,
    "l1": lambda tensor: torch.linalg.vector_norm(tensor, 1),
    "l2": torch.linalg.vector_norm,
}


class TensorHook(Hook):  # type: ignore[misc]
    """smdebug's hook, called by a training loop that handles its exceptions."""

    def has_default_configuration(self) -> bool:
        """Make smdebug raise its exceptions: with True it logs them, or kills the training."""
        return False

    @staticmethod
    def _make_numpy_array(tensor: object) -> npt.NDArray[Any]:
        if isinstance(tensor, Tensor):
            # NumPy has no bfloat16.
            wide = tensor.detach().float() if tensor.dtype == torch.bfloat16 else tensor.detach()
            return wide.cpu().numpy()
        return np.asarray(tensor)

    def _write_reductions(
        self, name: str, tensor: object, collections: Iterable[Any], tensor_ref: object = None
    ) -> None:
        """Write all reductions of a tensor after one transfer from its device."""
        wanted: dict[tuple[str, bool], None] = {}
        for collection in collections:
            if collection.name not in SCALAR_COLLECTIONS:
                chosen = collection.reduction_config
                wanted |= dict.fromkeys((kind, False) for kind in chosen.reductions + chosen.norms)
                absolute = chosen.abs_reductions + chosen.abs_norms
                wanted |= dict.fromkeys((kind, True) for kind in absolute)
        if not wanted:
            return
        values = _reduce(torch.as_tensor(tensor), list(wanted))
        for (kind, is_absolute), value in zip(wanted, values, strict=True):
            reduced = get_reduction_tensor_name(name, kind, is_absolute, remove_colon_index=True)
            self._write_raw_tensor_simple(reduced, value, tensor_ref=tensor_ref)


def _reduce(tensor: Tensor, wanted: Sequence[tuple[str, bool]]) -> list[float]:
    """Return reductions of a tensor, each given by its name and whether it is of absolute values.

    They are computed on the tensor's device in float32 or float64, with one synchronization.
    """
    values = tensor.detach()
    # bfloat16 and integers.
    if values.dtype not in (torch.float32, torch.float64):
        values = values.float()
    if values.numel() == 0:
        return [float("nan")] * len(wanted)
    reduced = []
    absolute = values.abs() if any(is_absolute for _, is_absolute in wanted) else values
    for kind, is_absolute in wanted:
        of = absolute if is_absolute else values
        # torch returns NaN for the deviation of a single value.
        is_single = of.numel() == 1 and kind in {"std", "variance"}
        reduced.append(of.new_zeros(()) if is_single else _KINDS[kind](of))
    numbers: list[float] = torch.stack(reduced).tolist()
    return numbers


def forget_hook() -> None:
    """Unregister smdebug's hook, so that it writes nothing at the end of the program."""
    hook = smdebug.core.singleton_utils._ts_hook  # noqa: SLF001
    if hook is not None:
        atexit.unregister(hook._cleanup)  # noqa: SLF001
        smdebug.core.singleton_utils.del_hook()


class DirectWriter(EventFileWriter):  # type: ignore[misc]
    """Writes events synchronously: on a full disk smdebug's thread dies, and waiting never ends."""

    def __init__(self, path: str, index_writer: object = None, **_threads: object) -> None:
        """Open the file."""
        self._ev_writer = EventsWriter(path=path, index_writer=index_writer)
        self._ev_writer.init()

    def write_event(self, event: Any) -> None:  # noqa: ANN401 - smdebug has no types
        """Write an event, and its location to the index."""
        is_indexed = isinstance(event, EventWithIndex)
        start, length = self._ev_writer.write_event(event.event if is_indexed else event)
        if is_indexed:
            path = get_relative_event_file_path(self._ev_writer.name())
            location = TensorLocation(
                tname=event.tensorname,
                mode=event.get_mode(),
                mode_step=event.mode_step,
                event_file_name=path,
                start_idx=start,
                length=length,
                worker=parse_worker_name_from_file(path),
            )
            self._ev_writer.index_writer.add_index(location)

    def flush(self) -> None:
        """Pass the data to the operating system."""
        self._ev_writer.flush()

    def close(self) -> None:
        """Finish the file, which has a temporary name until then."""
        self._ev_writer.close()

    def abandon(self) -> None:
        """Close a file that cannot be finished, so that its destructor does not try again."""
        events, index = self._ev_writer, self._ev_writer.index_writer
        files = [index.writer] if index is not None and index.writer is not None else []
        if events.tfrecord_writer is not None:
            files.append(events.tfrecord_writer._writer)  # noqa: SLF001
            events.tfrecord_writer._writer = None  # noqa: SLF001
            events.tfrecord_writer = None
        for file in files:
            # The disk has no space for the rest of the buffer either.
            with contextlib.suppress(OSError):
                file._accessor.close()  # noqa: SLF001


class _Bytes(np.ndarray):
    """An array with the method that NumPy 2.3 removed."""

    def tostring(self) -> bytes:
        return self.tobytes()


_make_tensor_proto = smdebug.core.tfevent.util.make_tensor_proto


def make_tensor_proto(nparray_data: npt.ArrayLike, tag: str) -> object:
    """Call smdebug's function of this name with an array that works with any NumPy."""
    return _make_tensor_proto(np.asarray(nparray_data).view(_Bytes), tag)


smdebug.core.tfevent.util.make_tensor_proto = make_tensor_proto
smdebug.core.writer.make_tensor_proto = make_tensor_proto
smdebug.core.writer.EventFileWriter = DirectWriter
# Otherwise every step reads the profiler's settings.
profiler_config_parser.load_config = lambda: None
logging.getLogger("smdebug").handlers.clear()
logging.getLogger("smdebug").propagate = True
