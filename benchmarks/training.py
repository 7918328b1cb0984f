"""Accuracy and time of training on real images, by the real program.

    python -m benchmarks.training --data ../shared/data hurricane fingers ants-bees

Each data set is a tar file in the folder `--data`. The training program runs as a process under
SageMaker's contract, on as many cores as this machine has; its `seconds` are those from the start
of the first epoch to the end of the last, its `total_seconds` those of the process. `--curve` draws
the validation accuracy of every epoch against the seconds.
"""

import argparse
import dataclasses
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks.conditions import print_results
from benchmarks.job import Case, environment, make_tree, unpacked

# Equal terms for both: the same network, steps and augmentation.
SQUEEZENET = {
    "network": "squeezenet1_0",
    "epochs": "3",
    "batch_size": "32",
    "horizontal_flip": "true",
}


def hurricane(epochs: int, **settings: str) -> Case:
    """Return the satellite views, of which none has an upper side."""
    return Case(
        tar="hurricane",
        training="hurricane/train_another",
        validation="hurricane/validation_another",
        hyperparameters={
            "network": "small",
            "epochs": str(epochs),
            "horizontal_flip": "true",
            "vertical_flip": "true",
            "quarter_turns": "true",
            # By whole pixels alone: debris is as small as one.
            "max_rotation": "0",
            "max_zoom": "0",
            "max_light": "0",
            "label_smoothing": "0.1",
            "half_size_steps": "0.6",
            **settings,
        },
    )


def uneven(class_balance: str) -> Case:
    """Return a twentieth of the damaged houses among all that are not."""
    case = hurricane(18, class_balance=class_balance)
    return dataclasses.replace(case, keep={"damage": 100, "no_damage": 2000})


CASES: dict[str, dict[str, Case]] = {
    "hurricane": {"10 minutes": hurricane(22), "30 minutes": hurricane(64)},
    "hurricane-uneven": {"auto": uneven("auto"), "none": uneven("none")},
    "fingers": {
        "from scratch": Case(
            training="fingers/train",
            validation="fingers/test",
            hyperparameters={"network": "small", "epochs": "4"},
        ),
    },
    "ants-bees": {
        "pretrained": Case(
            training="ants-bees/train",
            validation="ants-bees/val",
            hyperparameters=SQUEEZENET,
            weights="weights/squeezenet1_0-deepcompression.pth",
        ),
        "from scratch": Case(
            training="ants-bees/train",
            validation="ants-bees/val",
            hyperparameters={**SQUEEZENET, "pretrained": "false"},
        ),
    },
}


def main() -> None:
    """Run the given cases; print a table and one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", choices=[[], *CASES], help="data sets; default: all")
    parser.add_argument("--data", type=Path, required=True, help="folder of the tar files")
    parser.add_argument("--case", help="only this one of a data set's cases")
    parser.add_argument("--seeds", type=int, default=1, help="random seeds a case, from 0")
    parser.add_argument("--curve", type=Path, help="SVG file of accuracy against time")
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in arguments.names or CASES:
            for label, case in CASES[name].items():
                if arguments.case not in {None, label}:
                    continue
                images = unpacked(arguments.data, case.tar or name, Path(scratch))
                for seed in range(arguments.seeds):
                    base_dir = Path(scratch, "opt-ml")
                    make_tree(base_dir, case, images, arguments.data, seed)
                    result = {"data": name, "case": label, "seed": seed, **train(base_dir)}
                    results.append(result)
                    print(_row(result), flush=True)
                    shutil.rmtree(base_dir)
    if arguments.curve:
        _draw(arguments.curve, results)
    print_results(["torch", "torchvision"], results=results)


def train(base_dir: Path) -> dict[str, Any]:
    """Run the training program; return its accuracy, and the seconds of its parts."""
    start = time.monotonic()
    decoding = first = last = start
    curve = []
    with subprocess.Popen(
        [sys.executable, "-m", "container.training", "train"],
        env=environment(base_dir, PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stdout or ():
            print(line, end="", file=sys.stderr, flush=True)
            if line.startswith("hyperparameters: "):
                decoding = time.monotonic()
            if line.startswith("arithmetic="):
                first = time.monotonic()
            if match := re.match(r"epoch=.* val_accuracy=(\S+)", line):
                last = time.monotonic()
                curve.append((last - first, float(match[1])))
    if process.returncode != 0:
        raise SystemExit(process.returncode)
    metrics = json.loads((base_dir / "output/data/metrics.json").read_text(encoding="utf-8"))
    return {
        "val_accuracy": metrics["val_accuracy"],
        "val_balanced_accuracy": metrics["val_balanced_accuracy"],
        "curve": curve,
        "decoding_seconds": first - decoding,
        "seconds": last - first,
        "total_seconds": time.monotonic() - start,
    }


def _draw(path: Path, results: Sequence[Mapping[str, Any]]) -> None:
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axis = figure.subplots()
    colors = {case: f"C{n}" for n, case in enumerate(dict.fromkeys(r["case"] for r in results))}
    for result in results:
        seconds, accuracies = zip(*result["curve"], strict=True)
        minutes = [value / 60 for value in seconds]
        axis.plot(minutes, accuracies, color=colors[result["case"]], marker=".")
    axis.set(xlabel="minutes of training", ylabel="validation accuracy", ylim=(0.9, 1))
    axis.grid(alpha=0.3)
    axis.legend([Line2D([], [], color=color) for color in colors.values()], colors)
    figure.savefig(path)


def _row(result: Mapping[str, object]) -> str:
    return (
        f"{result['data']:<10} {result['case']:<13} seed {result['seed']}  "
        f"val_accuracy {result['val_accuracy']:.4f}  "
        f"balanced {result['val_balanced_accuracy']:.4f}  training {result['seconds']:.0f} s  "
        f"process {result['total_seconds']:.0f} s"
    )


if __name__ == "__main__":
    main()
