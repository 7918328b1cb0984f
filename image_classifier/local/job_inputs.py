"""What a training program on this machine gets: its channels, its network, and its /opt/ml."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from container.classifier.environment import TRACKING_VARIABLE
from container.classifier.errors import UserError
from image_classifier.platform import opt_ml, processes
from image_classifier.settings.settings_file import SettingsFile


def find_channels(file: SettingsFile) -> dict[str, Path]:
    """Return the folder of every channel.

    Raises:
        UserError: a channel has no folder.
    """
    sample = processes.TEST_DIR / opt_ml.DATA
    if file.local_data == sample and not any(sample.glob("*/")):
        raise UserError(
            f"no images in {sample}: draw them with `python -m image_classifier.platform prepare`"
        )
    return file.local_channels()


def has_network(file: SettingsFile) -> bool:
    """Return whether the programs of the settings may use the network, in containers."""
    settings = file.settings
    ranges = settings.tuning.ranges if settings.tuning else {}
    may_download = settings.downloads_weights() or not ranges.keys().isdisjoint(
        {"network", "pretrained"}
    )
    is_tracked = TRACKING_VARIABLE in settings.training.environment
    return (may_download or is_tracked) and not settings.aws.network_isolation


def prepare(
    base_dir: Path,
    channels: Mapping[str, Path],
    hyperparameters: Mapping[str, str],
    *,
    host: str = opt_ml.FIRST_HOST,
    hosts: Sequence[str] = (opt_ml.FIRST_HOST,),
) -> None:
    """Create /opt/ml for a job; channels are links, so that all jobs share decoded images.

    The previous job's checkpoints stay: a job of the same data and hyperparameters continues.
    The folder is that of one of the job's `hosts`.

    Raises:
        UserError: the folder is not writable.
    """
    for name in ("input", "model", "output"):
        shutil.rmtree(base_dir / name, ignore_errors=True)
    opt_ml.create(base_dir)
    for name, folder in channels.items():
        (base_dir / opt_ml.DATA / name).symlink_to(folder.resolve(), target_is_directory=True)
    opt_ml.write_config(base_dir, hyperparameters, host=host, hosts=hosts)
