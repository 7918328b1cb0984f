"""The /opt/ml tree of one training job on this machine: SageMaker's files and folders."""

import itertools
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from container.classifier.channel_names import CHANNEL_NAMES, TRAINING, find_channel
from container.classifier.class_folders import listed
from container.classifier.errors import UserError
from container.classifier.locks import locked

DATA = Path("input/data")
HYPERPARAMETERS = Path("input/config/hyperparameters.json")
FAILURE = Path("output/failure")
CHECKPOINTS = Path("checkpoints")
PREVIOUS = Path("previous")
METRICS = Path("output/data/metrics.json")

_FOLDERS = ("input/config", "input/data", "model", "output/data", "checkpoints")
FIRST_HOST = "algo-1"
_INSTANCE_TYPE = "local"


def require_no_training(base_dir: Path) -> None:
    """Check that no training is running in the folder.

    Raises:
        UserError: one is.
    """
    with locked(base_dir):
        pass


def create(base_dir: Path) -> None:
    """Create the folders of a job.

    The last failure is removed, and so are the checkpoints of a finished run: only a run that
    stopped or failed is continued.

    Raises:
        UserError: a folder is not writable, or a training is running there.
    """
    require_no_training(base_dir)
    for folder in _FOLDERS:
        # Docker creates mounted folders as root.
        if (base_dir / folder).is_dir() and not os.access(base_dir / folder, os.W_OK):
            raise UserError(
                f"cannot write {base_dir / folder}: a container created it as root. "
                f'Change its owner: sudo chown -R "$(id -u)" {base_dir}'
            )
        (base_dir / folder).mkdir(parents=True, exist_ok=True)
    (base_dir / FAILURE).unlink(missing_ok=True)
    if _is_finished(base_dir):
        _clear(base_dir / CHECKPOINTS)


def start_job(base_dir: Path) -> None:
    """Create the folders of a job, and move the last job's results to `previous/`.

    A training that fails then leaves nothing that could be taken for its result.

    Raises:
        UserError: a folder is not writable, or a training is running there.
    """
    create(base_dir)
    _keep_previous_results(base_dir)


def restart_job(base_dir: Path) -> int:
    """Remove what an interrupted job wrote, except its checkpoints, as on a new spot instance.

    Returns:
        The number of files of the checkpoints.
    """
    for name in ("model", "output"):
        _clear(base_dir / name)
    (base_dir / "output/data").mkdir()
    return sum(path.is_file() for path in (base_dir / CHECKPOINTS).rglob("*"))


def channels(base_dir: Path) -> list[str]:
    """Return the channels that exist in the tree."""
    accepted = itertools.chain(*CHANNEL_NAMES.values())
    return [name for name in accepted if (base_dir / DATA / name).is_dir()]


@contextmanager
def new_channels(base_dir: Path) -> Iterator[Path]:
    """Yield an empty folder for channels, which replace those in the tree after the `with` block.

    If the block fails, the tree does not change. Checkpoints are removed, and results are moved to
    `previous/`, because they are of other images.
    """
    staged = base_dir / "input/data.partial"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir()
    yield staged
    shutil.rmtree(base_dir / DATA)
    staged.rename(base_dir / DATA)
    _clear(base_dir / CHECKPOINTS)
    _keep_previous_results(base_dir)


def use_own_images(base_dir: Path, images: Path, *, replace: bool) -> list[str]:
    """Replace the channels of the tree by those in the folder `images`.

    Files are hard-linked if possible, else copied: a container that has only the tree mounted
    cannot follow a symbolic link out of it.

    Returns:
        The names of the folders in `images` that are not channels.

    Raises:
        UserError: `images` has no training channel, or the tree contains images already and
            `replace` is false.
    """
    folders = {path.name for path in images.glob("[!.]*/")}
    chosen = {
        channel: name for channel in CHANNEL_NAMES if (name := find_channel(channel, folders))
    }
    if TRAINING not in chosen:
        found = listed([f"{name}/" for name in sorted(folders)], 20) or "no folders"
        raise UserError(
            f"no folder {images / 'training'}, nor train/ there; found {found}: "
            f"expected training/ and optionally validation/ and test/ in {images}, each with a "
            "folder per class or with files called NAME_CLASS.png"
        )
    present = channels(base_dir)
    if present and not replace:
        raise UserError(
            f"{base_dir / DATA} contains {', '.join(present)} already: "
            "add --replace to replace them"
        )
    with new_channels(base_dir) as staged:
        for channel, name in chosen.items():
            shutil.copytree(images / name, staged / channel, copy_function=_link_or_copy)
    return sorted(folders - set(chosen.values()))


def write_config(
    base_dir: Path,
    hyperparameters: Mapping[str, object],
    names: Iterable[str] | None = None,
    *,
    host: str = FIRST_HOST,
    hosts: Sequence[str] = (FIRST_HOST,),
) -> None:
    """Write the three configuration files of a job as SageMaker does.

    Args:
        base_dir: the folder that stands for /opt/ml.
        hyperparameters: on SageMaker, all values are strings.
        names: of the channels; None: those that our training accepts.
        host: that the folder belongs to.
        hosts: all hosts of the job.
    """
    config = base_dir / "input/config"
    _write_json(base_dir / HYPERPARAMETERS, dict(hyperparameters))
    channel = {
        "TrainingInputMode": "File",
        "S3DistributionType": "FullyReplicated",
        "RecordWrapperType": "None",
    }
    names = channels(base_dir) if names is None else names
    _write_json(config / "inputdataconfig.json", dict.fromkeys(names, channel))
    group = {"instance_group_name": "homogeneousCluster", "instance_type": _INSTANCE_TYPE}
    resources = {
        "current_host": host,
        "hosts": [*hosts],
        "network_interface_name": "eth0",
        "current_instance_type": _INSTANCE_TYPE,
        "current_group_name": group["instance_group_name"],
        "instance_groups": [{**group, "hosts": [*hosts]}],
        "topology": None,
    }
    _write_json(config / "resourceconfig.json", resources)


def read_hyperparameters(base_dir: Path) -> dict[str, str]:
    """Return the hyperparameters in the tree; none if the file does not exist.

    Raises:
        UserError: the file is not a JSON object.
    """
    path = base_dir / HYPERPARAMETERS
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): fix or remove it") from error
    if not isinstance(document, dict):
        raise UserError(f"{path} must be a JSON object, got {str(document)[:80]}: fix or remove it")
    return {str(key): str(value) for key, value in document.items()}


def was_stopped(base_dir: Path) -> bool:
    """Return whether the results are of a run that was stopped: it is not calibrated."""
    try:
        return bool(json.loads((base_dir / METRICS).read_text())["calibration"] is None)
    except (OSError, KeyError, TypeError, ValueError):
        # Written by another program.
        return False


def _is_finished(base_dir: Path) -> bool:
    """Return whether the newest checkpoint is of a run that finished its epochs or minutes."""
    report, manifest = base_dir / METRICS, base_dir / "model/manifest.json"
    if not (report.is_file() and manifest.is_file()):
        return False
    # A run writes its report last, so a newer checkpoint is of another run.
    written = report.stat().st_mtime_ns
    if any(path.stat().st_mtime_ns > written for path in (base_dir / CHECKPOINTS).iterdir()):
        return False
    try:
        metrics = json.loads(report.read_text())
        requested = json.loads(manifest.read_text())["provenance"]["hyperparameters"]
        if requested.get("max_minutes") is not None:
            # The number of epochs is not known, but a stopped run is not calibrated.
            return metrics["calibration"] is not None
        return bool(len(metrics["history"]) >= requested["epochs"])
    except (AttributeError, KeyError, TypeError, ValueError):
        # Written by another program.
        return False


def _keep_previous_results(base_dir: Path) -> None:
    previous = base_dir / PREVIOUS
    if any(path.is_file() for path in (base_dir / "model").rglob("*")):
        shutil.rmtree(previous, ignore_errors=True)
        previous.mkdir()
        for name in ("model", "output"):
            # Only the content: the folder itself can be mounted.
            for path in (base_dir / name).iterdir():
                (previous / name).mkdir(exist_ok=True)
                path.rename(previous / name / path.name)
    else:
        # A training that failed does not replace the results of an earlier one.
        _clear(base_dir / "output")
    (base_dir / "output/data").mkdir(exist_ok=True)


def _clear(folder: Path) -> None:
    # Only the content: the folder itself can be mounted, or a link to another disk.
    for path in folder.iterdir():
        remove(path)


def remove(path: Path) -> None:
    """Remove a file, a symbolic link, or a folder with its content."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def _link_or_copy(source: str, destination: str) -> None:
    try:
        os.link(Path(source).resolve(), destination)
    except OSError:  # Another disk, or one without links.
        shutil.copy2(source, destination)
