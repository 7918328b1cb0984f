"""Files of finished local jobs, and the archive of a model."""

import tarfile
from pathlib import Path

MODEL, BEST = "model.tar.gz", "best.json"


def pack(model: Path, target: Path) -> None:
    """Pack a model's folder as SageMaker does, atomically."""
    partial = target.with_suffix(".partial")
    with tarfile.open(partial, "w:gz") as archive:
        for path in sorted(model.iterdir()):
            archive.add(path, path.name)
    partial.replace(target)
