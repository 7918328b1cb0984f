"""Accuracy and time of training on real pictures, by the real program.

    python -m benchmarks.training --data ../shared/data hurricane fingers ants-bees

Each data set is a tar file of the same name in the folder `--data`. The training program runs as
a process under SageMaker's contract, on as many cores as this machine has; its `seconds` are those
from the start of the first epoch to the end of the last, its `total_seconds` those of the process.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.conditions import ROOT, conditions


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A data set and how the training program is told to learn it."""

    training: str
    """Folder of the training channel within the tar file."""

    validation: str
    hyperparameters: Mapping[str, str]
    weights: str | None = None
    """File of the weights channel, beside the tar file."""


# Equal terms for both: the same network, steps and augmentation.
SQUEEZENET = {
    "network": "squeezenet1_0",
    "epochs": "3",
    "batch_size": "32",
    "horizontal_flip": "true",
}

CASES: dict[str, dict[str, Case]] = {
    "hurricane": {
        "from scratch": Case(
            training="hurricane/train_another",
            validation="hurricane/validation_another",
            hyperparameters={
                "network": "small",
                "epochs": "12",
                "horizontal_flip": "true",
                "vertical_flip": "true",
            },
        ),
    },
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
    """Run the cases that were asked for, print a table and one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", choices=[[], *CASES], help="data sets; default: all")
    parser.add_argument("--data", type=Path, required=True, help="folder of the tar files")
    parser.add_argument("--seeds", type=int, default=1, help="random seeds a case, from 0")
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in arguments.names or CASES:
            pictures = Path(scratch, name)
            with tarfile.open(arguments.data / f"{name}.tar") as archive:
                archive.extractall(pictures, filter="data")
            for label, case in CASES[name].items():
                for seed in range(arguments.seeds):
                    base_dir = Path(scratch, "opt-ml")
                    _make_tree(base_dir, case, pictures, arguments.data, seed)
                    result = {"data": name, "case": label, "seed": seed, **_train(base_dir)}
                    results.append(result)
                    print(_row(result), flush=True)
                    shutil.rmtree(base_dir)
    facts = conditions(["torch", "torchvision"])
    print(json.dumps({"results": results, "conditions": facts}))


def _make_tree(base_dir: Path, case: Case, pictures: Path, data: Path, seed: int) -> None:
    config, channels = base_dir / "input" / "config", base_dir / "input" / "data"
    config.mkdir(parents=True)
    channels.mkdir()
    (channels / "training").symlink_to(pictures / case.training)
    (channels / "validation").symlink_to(pictures / case.validation)
    if case.weights is not None:
        (channels / "weights").mkdir()
        (channels / "weights" / Path(case.weights).name).symlink_to((data / case.weights).resolve())
    hyperparameters = {**case.hyperparameters, "seed": str(seed)}
    (config / "hyperparameters.json").write_text(json.dumps(hyperparameters), encoding="utf-8")
    inputs = {path.name: {"TrainingInputMode": "File"} for path in channels.iterdir()}
    (config / "inputdataconfig.json").write_text(json.dumps(inputs), encoding="utf-8")


def _train(base_dir: Path) -> dict[str, float]:
    environment = {
        **os.environ,
        "SAGEMAKER_BASE_DIR": str(base_dir),
        # Of this run alone: every one decodes.
        "SAGEMAKER_CLASSIFIER_CACHE_DIR": str(base_dir / "cache"),
        "PYTHONPATH": str(ROOT / "container"),
        "PYTHONUNBUFFERED": "1",
    }
    start = time.monotonic()
    first = last = start
    with subprocess.Popen(
        [sys.executable, "-m", "training", "train"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stdout or ():
            print(line, end="", file=sys.stderr, flush=True)
            if line.startswith("arithmetic="):
                first = time.monotonic()
            if line.startswith("epoch="):
                last = time.monotonic()
    if process.returncode != 0:
        raise SystemExit(process.returncode)
    metrics = json.loads((base_dir / "output/data/metrics.json").read_text(encoding="utf-8"))
    return {
        "val_accuracy": metrics["val_accuracy"],
        "seconds": last - first,
        "total_seconds": time.monotonic() - start,
    }


def _row(result: Mapping[str, object]) -> str:
    return (
        f"{result['data']:<10} {result['case']:<13} seed {result['seed']}  "
        f"val_accuracy {result['val_accuracy']:.4f}  training {result['seconds']:.0f} s  "
        f"process {result['total_seconds']:.0f} s"
    )


if __name__ == "__main__":
    main()
