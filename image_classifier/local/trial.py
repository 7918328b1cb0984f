"""One trial of a local tuning job: a training program whose log is parsed."""

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from image_classifier.local.job_inputs import prepare
from image_classifier.local.programs import Programs, TrialFailedError

# Starts of the log lines after which the network does not change. A checkpoint exists then; only
# the best trial continues, with the export of its model, quantization and reports.
DECIDED = ("best_epoch=", "test_loss=")


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
