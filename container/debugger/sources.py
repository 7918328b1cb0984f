"""Finds the records of a training: its tensor files, or its log."""

from pathlib import Path

from container.classifier.errors import UserError
from container.debugger.profiler import reading
from container.debugger.profiler.reading import Profile
from container.debugger.reading import metric_log
from container.debugger.reading.records import Records

# Below a job's folder, or one of its output.
PLACES = (
    ".",
    "tensors",
    "output/tensors",
    "output/data/debug/tensors",
    "data/debug/tensors",
    "debug/tensors",
    "debug-output",
)


PROFILES = ("profiler", "output/profiler", "../profiler", "profiler-output", ".")


def read_profile(path: Path) -> Profile | None:
    """Return the profile in a job's folder, or in a profiler's own; None where there is none.

    Raises:
        UserError: it is damaged.
    """
    for place in PROFILES:
        if (path / place / "system").is_dir() or (path / place / "framework").is_dir():
            return reading.read(path / place)
    return None


def read(path: Path) -> Records:
    """Return the records of a folder of tensor files, of a job's folder, or of a log.

    Raises:
        UserError: there are none, or they are damaged.
    """
    if path.is_file():
        return metric_log.read(path)
    for place in PLACES:
        if (path / place / "index").is_dir():
            # It needs smdebug's messages; a log does not.
            from container.debugger.reading.tensor_files import TensorFiles  # noqa: PLC0415

            return TensorFiles(path / place).records()
    for name in ("output/data/metrics.json", "data/metrics.json", "metrics.json"):
        if (path / name).is_file():
            return metric_log.read(path / name)
    what = "holds neither tensor files nor metrics.json" if path.is_dir() else "does not exist"
    message = f"{path} {what}: name a folder of tensors, a job's folder, or a training's log"
    raise UserError(message)
