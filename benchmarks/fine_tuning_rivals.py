"""Fine-tuning within equal budgets of processor time: this project's, fastai's and usual loops.

    OMP_NUM_THREADS=1 python -m benchmarks.fine_tuning_rivals --data FOLDER --results FILE

    ... --rivals PYTHON

A seed draws the images if a data set is thinned, and all contenders train SqueezeNet with its
weights on them and take turns. `ours` is the training program as a process with `max_minutes`,
including its start, decoding, ONNX, int8 and reports; `frozen stage` the same with
`fine_tuning=none`. The rivals are programs of benchmarks/rivals: `torchvision`, `students`, and
`fastai` if `--rivals` names an interpreter that has it, torch and torchvision. They train for one
epoch first, which is not counted, and then anew for as many epochs as fit, evaluations included.

The budget is the processor time of all processes with one thread each: other programs on the
machine change it little. "Kept" is the accuracy of the best epoch, "last" that of the last one, of
the validation images. The best of many epochs is better on these than on others: with `--test`,
ours and the frozen stage are compared on images that choose no epoch.

A result is a line of `--results`. A program that is started again skips what the file holds.
"""

import argparse
import dataclasses
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchvision.models import SqueezeNet1_0_Weights

from benchmarks import time_budget
from benchmarks.conditions import ROOT, print_results
from benchmarks.fine_tuning import DATA, NETWORK, WEIGHTS
from benchmarks.job import Case, make_tree, unpacked
from benchmarks.results import continued, drawn, points
from benchmarks.rivals.budget import Job
from container.classifier import labeled_images

OURS: dict[str, dict[str, str]] = {"ours": {}, "frozen stage": {"fine_tuning": "none"}}
FASTAI = "fastai"
MODULES = {
    FASTAI: "benchmarks.rivals.fastai_fine_tuning",
    "torchvision": "benchmarks.rivals.torch_loop",
    "students": "benchmarks.rivals.torch_loop",
}

# Training and validation images, of the data sets that are thinned.
THINNED = {"hurricane": (1000, 500)}

# Beyond this part of the budget a run has not kept it.
TOLERANCE = 0.05

# The least `max_minutes`.
MIN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Run:
    """A contender with a budget and a seed on a data set."""

    data: str
    contender: str
    seconds: float
    seed: int
    images: int | None
    """At most so many for training, and a half for validation."""

    image_size: int
    """Of the rivals; ours chooses."""

    is_tested: bool = False
    """Whether half of the validation images choose the epoch and all others are for testing."""


def main() -> None:
    """Run what is missing in the results; print a table and one JSON document."""
    arguments = _arguments()
    others = () if arguments.test else MODULES
    names = [name for name in (*OURS, *others) if name != FASTAI or arguments.rivals]
    os.environ["OMP_NUM_THREADS"] = "1"
    runs = (
        Run(data, name, seconds, seed, arguments.images, arguments.image_size, arguments.test)
        for seed, data, seconds, name in itertools.product(
            range(arguments.seeds),
            arguments.sets,
            arguments.seconds,
            arguments.contenders or names,
        )
    )
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        results = continued(
            arguments.results,
            () if arguments.table else runs,
            lambda run: _result(run, arguments, scratch),
        )
    _print_table(results)
    print_results(["torch", "torchvision"], results=results)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the tar files, weights")
    parser.add_argument("--results", type=Path, required=True, help="JSON Lines, continued")
    parser.add_argument("--rivals", type=Path, help="interpreter that has fastai")
    parser.add_argument("--sets", nargs="*", choices=DATA, default=[*DATA])
    parser.add_argument("--contenders", nargs="*", choices=[*OURS, *MODULES], help="default: all")
    parser.add_argument("--seconds", type=float, nargs="+", default=[180, 360, 720])
    parser.add_argument("--seeds", type=int, default=3, help="from 0; default: 3")
    parser.add_argument("--images", type=int, help="for training, and half as many for validation")
    parser.add_argument("--image-size", type=int, default=224, help="of the rivals; default: 224")
    test_help = "ours only: accuracy on images that choose no epoch"
    parser.add_argument("--test", help=test_help, action="store_true")
    parser.add_argument("--table", action="store_true", help="print the table only")
    arguments = parser.parse_args()
    if min(arguments.seconds) < MIN_SECONDS:
        parser.error(f"--seconds must be at least {MIN_SECONDS:g}: the least max_minutes is 1")
    if FASTAI in (arguments.contenders or ()) and not arguments.rivals:
        parser.error("fastai needs --rivals PYTHON")
    if arguments.test and not OURS.keys() >= set(arguments.contenders or ()):
        parser.error(f"--test is for {' and '.join(OURS)}")
    return arguments


def _result(run: Run, arguments: argparse.Namespace, scratch: Path) -> Mapping[str, object]:
    folder = drawn_folder(run, arguments.data, scratch)
    if run.contender in OURS:
        return _ours(run, folder, arguments.data)
    python = arguments.rivals if run.contender == FASTAI else Path(sys.executable)
    # Where torchvision, and so fastai, finds the weights as if they were downloaded.
    weights = scratch / "hub" / "checkpoints" / Path(SqueezeNet1_0_Weights.DEFAULT.url).name
    if not weights.exists():
        weights.parent.mkdir(parents=True)
        weights.symlink_to((arguments.data / WEIGHTS).resolve())
    job = Job(run.contender, str(folder), run.seconds, run.seed, run.image_size)
    done = subprocess.run(
        [str(python), "-m", MODULES[run.contender], json.dumps(dataclasses.asdict(job))],
        cwd=ROOT,
        env={**os.environ, "TORCH_HOME": str(scratch)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    result = json.loads(done.stdout.splitlines()[-1])
    return {"kept": max(result["accuracies"]), **result}


def _ours(run: Run, folder: Path, data: Path) -> Mapping[str, object]:
    """Run the training program, whose clock is its processor time."""
    minutes = str(run.seconds / 60)
    case = Case(
        training="train",
        validation="val",
        test="test" if run.is_tested else None,
        hyperparameters={"network": NETWORK, "max_minutes": minutes, **OURS[run.contender]},
        weights=WEIGHTS,
    )
    with tempfile.TemporaryDirectory() as base_dir:
        make_tree(Path(base_dir), case, folder, data, run.seed)
        result = time_budget.run(Path(base_dir), time_budget.IDLE)
    kept = result.pop("val_accuracy")
    # Without epochs, it is the head that the frozen stage has trained.
    return {"kept": kept, **result, "accuracies": result["accuracies"] or [kept]}


def drawn_folder(run: Run, data: Path, scratch: Path) -> Path:
    """Return a folder with links to the images of a seed in `train`, `val` and `test`."""
    counts: Sequence[int | None] = THINNED.get(run.data, (None, None))
    if run.images:
        counts = (run.images, run.images // 2)
    folder = scratch / f"{run.data}-{run.seed}"
    if folder.exists():
        return folder
    images = unpacked(data, run.data, scratch)
    training, validation = (
        labeled_images.labeled_files(images / source) for source in DATA[run.data]
    )
    channels = {
        "train": drawn(training, counts[0] or len(training), run.seed),
        "val": drawn(validation, counts[1] or len(validation), run.seed),
    }
    if run.is_tested:
        channels["val"] = drawn(channels["val"], len(channels["val"]) // 2, run.seed)
        channels["test"] = [file for file in validation if file not in channels["val"]]
    for channel, files in channels.items():
        for file in files:
            link = folder / channel / file.class_name / file.path.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.path)
    return folder


def _print_table(results: Sequence[Mapping[str, Any]]) -> None:
    """Print mean accuracies, and what ours is better by, paired by seed."""
    by_run = {Run(**result["run"]): result for result in results}
    groups: dict[Run, list[Run]] = defaultdict(list)
    for run in by_run:
        groups[dataclasses.replace(run, seed=0)].append(run)
    titles = ("kept", "last", "test", "ours is better by", "epochs", "seconds", "over budget")
    print(f"{'data, seconds: contender':<40}  n" + "".join(f"{title:>19}" for title in titles))
    for group, runs in groups.items():
        own = [by_run[run] for run in runs]
        ours = [by_run.get(dataclasses.replace(run, contender="ours")) for run in runs]
        score = "test_accuracy" if group.is_tested else "kept"
        gains = [a[score] - b[score] for a, b in zip(ours, own, strict=True) if a]
        limit = (1 + TOLERANCE) * group.seconds
        cells = (
            f"{100 * statistics.mean(each['kept'] for each in own):.1f}",
            f"{100 * statistics.mean(each['accuracies'][-1] for each in own):.1f}",
            f"{100 * statistics.mean(each[score] for each in own):.1f}" * group.is_tested,
            points(gains),
            f"{statistics.mean(each['epochs'] for each in own):.1f}",
            f"{statistics.mean(each['seconds'] for each in own):.0f}",
            str(sum(each["seconds"] > limit for each in own)),
        )
        where = f"{group.data}, {group.seconds:g}: {group.contender}"
        print(f"{where:<40} {len(runs):>2}" + "".join(f"{cell:>19}" for cell in cells))


if __name__ == "__main__":
    main()
