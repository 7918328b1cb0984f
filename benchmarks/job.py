"""Training jobs on this machine: their files and environment variables, as in SageMaker."""

import json
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A data set and the settings to train on it."""

    training: str
    """Folder of the training channel within the tar file."""

    validation: str
    hyperparameters: Mapping[str, str]
    test: str | None = None

    weights: str | None = None
    """File of the weights channel, beside the tar file."""

    tar: str | None = None
    """The tar file's name, where it isn't that of the data set."""

    keep: Mapping[str, int] = field(default_factory=dict)
    """How many images of some classes the training channel has; of the others all."""


def unpacked(data: Path, name: str, scratch: Path) -> Path:
    """Return the folder of a tar file's images, unpacked the first time."""
    directory, file = scratch / "images" / name, data / f"{name}.tar"
    if not file.is_file():
        raise SystemExit(f"no {file}: --data names the folder that holds it")
    if not directory.exists():
        with tarfile.open(file) as archive:
            archive.extractall(directory, filter="data")
    return directory


def make_tree(base_dir: Path, case: Case, images: Path, data: Path, seed: int) -> None:
    """Write what SageMaker would give a job: channels, hyperparameters and where they are."""
    channels = base_dir / "input" / "data"
    channels.mkdir(parents=True)
    _make_channel(channels / "training", images / case.training, case.keep)
    (channels / "validation").symlink_to(images / case.validation)
    if case.test is not None:
        (channels / "test").symlink_to(images / case.test)
    if case.weights is not None:
        (channels / "weights").mkdir()
        (channels / "weights" / Path(case.weights).name).symlink_to((data / case.weights).resolve())
    write_configuration(base_dir, {**case.hyperparameters, "seed": str(seed)})


def write_configuration(base_dir: Path, hyperparameters: Mapping[str, str]) -> None:
    """Write hyperparameters, and name the channels that are in `input/data`."""
    config, channels = base_dir / "input" / "config", base_dir / "input" / "data"
    config.mkdir(parents=True)
    inputs = {path.name: {"TrainingInputMode": "File"} for path in channels.iterdir()}
    for name, document in (("hyperparameters", hyperparameters), ("inputdataconfig", inputs)):
        (config / f"{name}.json").write_text(json.dumps(document), encoding="utf-8")


def environment(base_dir: Path, **variables: str) -> dict[str, str]:
    """Return the environment of a job in `base_dir`, with a separate cache: it decodes."""
    return {
        **os.environ,
        "SAGEMAKER_BASE_DIR": str(base_dir),
        "SAGEMAKER_CLASSIFIER_CACHE_DIR": str(base_dir / "cache"),
        **variables,
    }


def _make_channel(directory: Path, images: Path, keep: Mapping[str, int]) -> None:
    """Make a channel of links: to all images, or to some of each class."""
    if not keep:
        directory.symlink_to(images)
        return
    for folder in sorted(images.iterdir()):
        (directory / folder.name).mkdir(parents=True)
        for path in sorted(folder.iterdir())[: keep.get(folder.name)]:
            (directory / folder.name / path.name).symlink_to(path)
