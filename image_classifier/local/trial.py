"""One trial of a local tuning job: a training program whose log is parsed."""

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from container.classifier.environment import TRACKING_VARIABLE
from container.classifier.errors import UserError
from image_classifier.local.programs import Programs, TrialFailedError
from image_classifier.platform import opt_ml, processes
from image_classifier.settings.settings_file import SettingsFile

# Starts of the log lines after which the network does not change. A checkpoint exists then; only
# the best trial continues, with the export of its model, quantization and reports.
DECIDED = ("best_epoch=", "test_loss=")


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


def run(
    base_dir: Path,
    channels: Mapping[str, Path],
    hyperparameters: Mapping[str, str],
    objective: re.Pattern[str],
    *,
    programs: Programs[Any],
    report: Callable[[float, int], None],
) -> float:
    """Train in `base_dir` without exporting a model; return the last objective in the log.

    `report` is called with every epoch's objective and its number; an exception that it raises
    ends the trial.

    Raises:
        TrialFailedError: the program failed, or logged no objective.
    """
    shutil.rmtree(base_dir, ignore_errors=True)
    prepare(base_dir, channels, hyperparameters)
    # The check of min_accuracy is the last step of the program.
    decided = () if "min_accuracy" in hyperparameters else DECIDED
    last, count = None, 0
    with programs.lines(base_dir) as lines:
        for line in lines:
            match = objective.search(line)
            if match is not None:
                last = float(match[1])
            if line.startswith(DECIDED):
                # The line of the test set is the first one with test metrics.
                if line.startswith(decided) and last is not None:
                    break
            elif match is not None:
                count += 1
                report(float(match[1]), count)
    if last is None:
        raise TrialFailedError("the log has no objective")
    return last


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
