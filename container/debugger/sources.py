"""Lookup of a training's records and profile: tensor files, profiler files, or a log."""

from pathlib import Path

from container.classifier.errors import UserError
from container.debugger.profiler import profile
from container.debugger.profiler.profile import Profile
from container.debugger.reading import metric_log
from container.debugger.reading.records import Records

# Below a job's folder, or its output folder.
TENSOR_FOLDERS = (
    ".",
    "tensors",
    "output/tensors",
    "output/data/debug/tensors",
    "data/debug/tensors",
    "debug/tensors",
    "debug-output",
)
PROFILE_FOLDERS = ("profiler", "output/profiler", "../profiler", "profiler-output", ".")
METRICS = ("output/data/metrics.json", "data/metrics.json", "metrics.json")


def read_profile(path: Path) -> Profile | None:
    """Return the profile in a job's or a profiler's folder, or None.

    Raises:
        UserError: it is damaged.
    """
    for folder in (path / name for name in PROFILE_FOLDERS):
        if (folder / "system").is_dir() or (folder / "framework").is_dir():
            return profile.read(folder)
    return None


def read(path: Path) -> Records:
    """Return the records of a folder of tensor files, of a job's folder, or of a log.

    Raises:
        UserError: there are no records, or they are damaged.
    """
    if path.is_file():
        return metric_log.read(path)
    for folder in (path / name for name in TENSOR_FOLDERS):
        if (folder / "index").is_dir():
            # It needs smdebug's messages; a log does not.
            from container.debugger.reading.tensor_files import TensorFiles  # noqa: PLC0415

            return TensorFiles(folder).records()
    for name in METRICS:
        if (path / name).is_file():
            return metric_log.read(path / name)
    what = "has neither tensor files nor metrics.json" if path.is_dir() else "does not exist"
    raise UserError(f"{path} {what}: name a folder of tensors, a job's folder, or a training's log")
