"""Cost of a local tuning job with twenty trials, and of twenty separate trainings.

    python -m benchmarks.tuning --data ../shared/data

Both draw learning rate, weight decay, batch size and epochs of the small network from the same
ranges, for every eighth hand of fingers.tar. `separate` is a loop over the training program: each
training is a separate process with an empty cache and runs all epochs. `search` is
`image_classifier tune --local` with `early_stopping`. Both use one process per CPU with one thread
each. One half of the separate trainings runs before the searches, the other half after them. Each
search starts from scratch. All train without the debugger.

Processor seconds are the CPU time of all processes; seconds are wall-clock time.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks.conditions import print_results
from benchmarks.job import environment, unpacked
from benchmarks.rivals.budget import processor_seconds
from container.classifier.machine import usable_cpus
from image_classifier.cli import results
from image_classifier.local import job_inputs, packing
from image_classifier.settings import settings_file
from image_classifier.settings.section import to_strings
from image_classifier.settings.settings_file import SettingsFile

# Every n-th image of each channel is used.
THINNED = {"training": 8, "validation": 2}

SETTINGS = """
name = "hands-{seed}"

[data]
local = "images"
channels = ["training", "validation"]

[hyperparameters]
network = "small"
image_size = 32
debug = "off"

[tuning]
objective = "val_accuracy"
early_stopping = true
seed = {seed}
jobs = {jobs}
parallel = {parallel}

[tuning.ranges]
learning_rate = {{ min = 0.001, max = 0.1, scaling = "Logarithmic" }}
weight_decay = {{ min = 0.0001, max = 0.1, scaling = "Logarithmic" }}
batch_size = {{ values = [16, 32, 64, 128] }}
epochs = {{ min = 8, max = 32 }}
"""

METRICS = Path("output/data/metrics.json")

Measured = dict[str, float]


def main() -> None:
    """Measure both; print a table and one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of fingers.tar")
    parser.add_argument("--jobs", type=int, default=20, help="trials (default: %(default)s)")
    parser.add_argument("--searches", type=int, default=3, help="(default: %(default)s)")
    arguments = parser.parse_args()
    parallel = max(1, int(usable_cpus()))
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _write_images(unpacked(arguments.data, "fingers", folder) / "fingers", folder)
        file = _settings(folder, arguments.jobs, parallel, seed=0)
        drawn = [*_draw(file, arguments.jobs)]
        half = len(drawn) // 2
        before = _measured(lambda: _separately(file, drawn[:half], folder, parallel))
        searches = [
            _measured(partial(_tuned, _settings(folder, arguments.jobs, parallel, seed), folder))
            for seed in range(arguments.searches)
        ]
        after = _measured(lambda: _separately(file, drawn[half:], folder, parallel))
    separate = {name: before[name] + after[name] for name in ("processor_seconds", "seconds")}
    separate["best"] = max(before["best"], after["best"])
    for search in searches:
        search["ratio"] = separate["processor_seconds"] / search["processor_seconds"]
    rows = [("separate", separate), *((f"search {n}", found) for n, found in enumerate(searches))]
    for name, row in rows:
        print(f"{name:<9} " + "  ".join(f"{key} {value:.4g}" for key, value in row.items()))
    ratio = statistics.median(search["ratio"] for search in searches)
    print(f"ratio of processor seconds, median {ratio:.2f}")
    found = {"separate": separate, "searches": searches, "ratio": ratio, "jobs": arguments.jobs}
    print_results(["torch", "torchvision", "optuna"], **found)


def _settings(folder: Path, jobs: int, parallel: int, seed: int) -> SettingsFile:
    path = folder / f"settings-{seed}.toml"
    text = SETTINGS.format(jobs=jobs, parallel=parallel, seed=seed)
    path.write_text(text, encoding="utf-8")
    return settings_file.read(path)


def _write_images(unpacked_images: Path, folder: Path) -> None:
    for channel, source in (("training", "train"), ("validation", "test")):
        (folder / "images" / channel).mkdir(parents=True)
        images = sorted((unpacked_images / source).iterdir())
        for path in images[:: THINNED[channel]]:
            (folder / "images" / channel / path.name).hardlink_to(path)


def _draw(file: SettingsFile, jobs: int) -> Sequence[Mapping[str, object]]:
    """Return hyperparameters drawn from the ranges, like a random search."""
    tuning = file.settings.tuning
    assert tuning  # noqa: S101 - of the settings above
    generator = random.Random(0)  # noqa: S311 - no secrets

    def value(name: str) -> object:
        found = tuning.ranges[name]
        if found.values:
            return generator.choice(found.values)
        low, high = found.bounds
        if found.scaling == "Logarithmic":
            return low * (high / low) ** generator.random()
        return generator.randint(int(low), int(high))

    return [
        {**file.settings.hyperparameters, **{name: value(name) for name in tuning.ranges}}
        for _ in range(jobs)
    ]


def _separately(
    file: SettingsFile, drawn: Sequence[Mapping[str, object]], folder: Path, parallel: int
) -> float:
    """Train with all hyperparameters; return the best accuracy."""

    def train(hyperparameters: Mapping[str, object]) -> float:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            base_dir = Path(scratch, "ml")
            job_inputs.prepare(base_dir, file.local_channels(), to_strings(hyperparameters))
            _run(["container.training", "train"], base_dir, folder)
            report = (base_dir / METRICS).read_text(encoding="utf-8")
        # The accuracy of the exported weights, which is the objective of `tune` too.
        accuracy = float(json.loads(report)["val_accuracy"])
        print(f"val_accuracy {accuracy:.4f}  {hyperparameters}", file=sys.stderr, flush=True)
        return accuracy

    with ThreadPoolExecutor(parallel) as pool:
        return max(pool.map(train, drawn))


def _tuned(file: SettingsFile, folder: Path) -> float:
    """Tune; return the best accuracy."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        command = ["image_classifier", "tune", str(file.path), "--local", "--processes"]
        print(_run(command, Path(scratch, "ml"), Path(scratch)), file=sys.stderr)
        best = results.folder_of(file) / "tuning" / packing.BEST
        return float(json.loads(best.read_text(encoding="utf-8"))["objective"])


def _run(command: Sequence[str], base_dir: Path, folder: Path) -> str:
    return subprocess.run(
        [sys.executable, "-m", *command],
        env=environment(base_dir),
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


def _measured(search: Callable[[], float]) -> Measured:
    before, start = processor_seconds(), time.monotonic()
    best = search()
    computed, seconds = processor_seconds() - before, time.monotonic() - start
    return {"processor_seconds": computed, "seconds": seconds, "best": best}


if __name__ == "__main__":
    main()
