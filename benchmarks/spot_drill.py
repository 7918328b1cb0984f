"""Interrupt one training job at random moments, and compare its result to an uninterrupted one.

    python -m benchmarks.spot_drill
    python -m benchmarks.spot_drill --image image-classifier-train

The job trains the small network on drawn hands, as a process or in a container. Every second
interruption is SIGTERM, as before the end of a spot instance, and the others are SIGKILL, as if the
time after SIGTERM was not enough. Each restart has new folders, and the same checkpoints. The
command fails if the weights differ.
"""

import argparse
import hashlib
import random
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.conditions import print_results
from container.classifier.artifact import WEIGHTS
from image_classifier.platform import hands
from image_classifier.platform.doctor import job
from image_classifier.platform.doctor.cases import TRAIN
from image_classifier.platform.doctor.examination import GIB, Examination, Options, TimeLimits
from image_classifier.platform.doctor.job import Job, Result
from image_classifier.platform.doctor.report import Report
from image_classifier.platform.program import ROOT
from image_classifier.platform.sandbox.container_target import ContainerTarget
from image_classifier.platform.sandbox.launch import Running, Target
from image_classifier.platform.sandbox.process_target import ProcessTarget

HYPERPARAMETERS = {
    "network": "small",
    "image_size": "24",
    "batch_size": "16",
    "quantize": "none",
    "debug": "off",
    # `auto` measures, and could choose differently after a restart.
    "precision": "float32",
}
IMAGES = {"training": 240, "validation": 60}


def main() -> None:
    """Run both jobs; print the moments, the weights' hashes and a JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--image", help="container image (default: a process)")
    parser.add_argument("--interruptions", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "container.training", "train"]
    target: Target = ProcessTarget(command, cwd=ROOT)
    if arguments.image:
        target = ContainerTarget(arguments.image, "train")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        examination = _examination(target, Path(scratch), arguments.epochs)
        whole = job.run(examination, _job("whole", examination))
        expected = _hash(whole)
        print(f"uninterrupted: {whole.seconds:.1f} s, {expected}", flush=True)
        moments, last = _interrupt(examination, arguments, whole.seconds)
        found = _hash(last)
    print(f"interrupted {len(moments)} times: {found}")
    document = {"seconds": whole.seconds, "moments": moments, "is_equal": found == expected}
    print_results(["torch"], **document)
    if found != expected:
        raise SystemExit("the weights differ")


def _examination(target: Target, folder: Path, epochs: int) -> Examination:
    data = folder / "drawn"
    data.mkdir()
    for channel, count in IMAGES.items():
        hands.write_images(data / channel, count, 0)
    examination = Examination(
        target=target,
        role=TRAIN,
        options=Options(
            data=data,
            hyperparameters={**HYPERPARAMETERS, "epochs": str(epochs)},
            memory=4 * GIB,
        ),
        limits=TimeLimits(job=3600),
        report=Report([]),
        folder=folder,
    )
    job.copy_data(examination)
    return examination


def _interrupt(
    examination: Examination, arguments: argparse.Namespace, seconds: float
) -> tuple[list[str], Result]:
    """Return the interruptions, and the result of the job that was not interrupted any more."""
    chooser = random.Random(arguments.seed)  # noqa: S311 - of moments
    moments: list[str] = []

    def interrupt(running: Running) -> None:
        # Many moments are before the first checkpoint, others between two of them.
        moment = chooser.uniform(0, seconds / 6)
        is_kill = len(moments) % 2 == 1
        if running.wait(moment) is not None:
            return
        (running.kill if is_kill else running.terminate)()
        moments.append(f"{'SIGKILL' if is_kill else 'SIGTERM'} after {moment:.1f} s")
        print(moments[-1], flush=True)

    number, start = 0, time.monotonic()
    while len(moments) < arguments.interruptions:
        before = len(moments)
        result = job.run(examination, _job(f"part-{number}", examination), interrupt)
        number += 1
        if len(moments) == before:
            print("the job ended before it was interrupted: use more --epochs")
            return moments, result
    print(f"{time.monotonic() - start:.0f} s with interruptions", flush=True)
    return moments, job.run(examination, _job("last", examination))


def _job(name: str, examination: Examination) -> Job:
    checkpoints = examination.folder / ("alone" if name == "whole" else "shared")
    checkpoints.mkdir(exist_ok=True)
    hyperparameters = examination.options.hyperparameters
    return Job(name=name, hyperparameters=hyperparameters, checkpoints=checkpoints)


def _hash(result: Result) -> str:
    weights = result.folder / "model" / WEIGHTS
    if not (result.is_success and weights.is_file()):
        raise SystemExit(f"the job failed with exit code {result.exit_code}: {result.last_line}")
    return hashlib.sha256(weights.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
