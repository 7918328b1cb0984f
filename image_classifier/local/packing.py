"""Files of finished local jobs, and their archives."""

import tarfile
from pathlib import Path

MODEL, OUTPUT, BEST = "model.tar.gz", "output.tar.gz", "best.json"


def pack(folder: Path, target: Path) -> None:
    """Pack a model, or the other outputs of a job, as SageMaker does, atomically."""
    partial = target.with_suffix(".partial")
    with tarfile.open(partial, "w:gz") as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name)
    partial.replace(target)
