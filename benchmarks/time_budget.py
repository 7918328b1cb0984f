"""Whether jobs with `max_minutes` take that long, on one core, on two, and beside other programs.

    python -m benchmarks.time_budget --data ../shared/data digits

The training program runs as a process, which includes its start, the export, int8 and the reports.
"Shared" is two cores with two other programs that use them all the time. Each row has the load
average of the machine before the run: other programs make rows incomparable.

"Idle core" is for a machine that is never idle: the clock of the program is its CPU time with one
thread, which is the time that it would take on a core without other programs or waits for a disk.
"""

import argparse
import dataclasses
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.conditions import print_results
from benchmarks.job import Case, environment, make_tree, unpacked
from benchmarks.rivals.budget import processor_seconds
from container.classifier.artifact import Artifact

SQUEEZENET = {"network": "squeezenet1_0", "image_size": "128", "batch_size": "32"}
WEIGHTS = "weights/squeezenet1_0-deepcompression.pth"

# The folders are those of the tar files.
CASES = {
    "digits": Case(
        training="digits/train",
        validation="digits/val",
        hyperparameters=SQUEEZENET,
        weights=WEIGHTS,
    ),
    "flowers": Case(
        training="flowers/train",
        validation="flowers/val",
        hyperparameters=SQUEEZENET,
        weights=WEIGHTS,
    ),
    "from-scratch": Case(
        tar="digits",
        training="digits/train",
        validation="digits/val",
        hyperparameters={"network": "small", "image_size": "64"},
    ),
}

# The cores, and how many other programs use each of them.
IDLE = "idle core"
PLACES = {"1 core": ((0,), 0), "2 cores": ((0, 1), 0), "shared": ((0, 1), 1), IDLE: ((0,), 0)}

# The standard library's modules keep the real clock.
CPU_TIME = """
import queue, resource, runpy, subprocess, time

def seconds():
    kinds = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    return sum(sum(resource.getrusage(kind)[:2]) for kind in kinds)

time.monotonic = time.perf_counter = seconds
runpy.run_module("container.training", run_name="__main__", alter_sys=True)
"""

# Until this program ends.
BUSY = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"


def main() -> None:
    """Run every budget in every place; print a table and one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", choices=[[], *CASES], help="data sets; default: all")
    parser.add_argument("--data", type=Path, required=True, help="folder of the tar files")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 2, 4])
    parser.add_argument("--places", nargs="+", choices=PLACES, default=list(PLACES))
    parser.add_argument("--images", type=int, help="of each class, for training; default: all")
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        runs = itertools.product(arguments.names or CASES, arguments.minutes, arguments.places)
        for number, (name, minutes, place) in enumerate(runs):
            images = unpacked(arguments.data, CASES[name].tar or name, Path(scratch))
            base_dir = Path(scratch, str(number))
            case = _limited(CASES[name], images, arguments.images, minutes)
            make_tree(base_dir, case, images, arguments.data, seed=0)
            result = {"data": name, "place": place, "minutes": minutes, **run(base_dir, place)}
            results.append(result)
            print(_row(result), flush=True)
    print_results(["torch"], results=results)


def _limited(case: Case, images: Path, count: int | None, minutes: float) -> Case:
    folders = (images / case.training).iterdir() if count else ()
    return dataclasses.replace(
        case,
        hyperparameters={**case.hyperparameters, "max_minutes": str(minutes)},
        keep={folder.name: count for folder in folders if count},
    )


def run(base_dir: Path, place: str) -> dict[str, Any]:
    """Run a job in a place; return its seconds, epochs, accuracies and precision."""
    cores, others = PLACES[place]
    program, clock = ["-m", "container.training"], time.monotonic
    if place == IDLE:
        program, clock = ["-c", CPU_TIME], processor_seconds
    load, command = os.getloadavg()[0], [sys.executable, *program, "train"]
    with _busy(cores, others), (base_dir / "log").open("w") as log:
        start = clock()
        subprocess.run(_on(cores, command), env=environment(base_dir), stdout=log, check=True)
        seconds = clock() - start
    manifest = Artifact.read(base_dir / "model").manifest
    report = json.loads((base_dir / "output/data/metrics.json").read_text())
    return {
        "seconds": seconds,
        "epochs": len(report["history"]),
        "accuracies": [epoch["val_accuracy"] for epoch in report["history"]],
        "image_size": manifest.preprocessing.image_size,
        "best_epoch": report["epoch"],
        "val_accuracy": report["val_accuracy"],
        **({"test_accuracy": report["test"]["test_accuracy"]} if report["test"] else {}),
        "precision": manifest.precision,
        "quantization": report["quantization"]["reason"],
        "load_before": load,
    }


@contextmanager
def _busy(cores: Sequence[int], others: int) -> Iterator[None]:
    """Keep every core busy with so many other programs."""
    command = _on(cores, [sys.executable, "-c", BUSY])
    programs = [subprocess.Popen(command) for _ in range(others * len(cores))]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def _on(cores: Sequence[int], command: Sequence[str]) -> list[str]:
    return ["taskset", "--cpu-list", ",".join(map(str, cores)), *command]


def _row(result: dict[str, Any]) -> str:
    share = result["seconds"] / (60 * result["minutes"])
    return (
        f"{result['data']:<12} {result['place']:<9} {result['minutes']:>4g} minutes: "
        f"{result['seconds']:>5.0f} s, {share:>4.0%}  {result['epochs']:>3} epochs  "
        f"val_accuracy {result['val_accuracy']:.4f}  {result['precision']}  "
        f"load {result['load_before']:.1f}"
    )


if __name__ == "__main__":
    main()
