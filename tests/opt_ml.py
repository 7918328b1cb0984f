"""Helpers: a training job's /opt/ml with small images, and runs of the training program."""

import io
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from container.training.__main__ import main
from tests.processes import free_port

COLORS = {"blue": (40, 60, 200), "green": (40, 190, 60), "red": (210, 50, 40)}

# A job of a few seconds with the same result on every machine.
HYPERPARAMETERS = {
    "network": "small",
    "image_size": "16",
    "epochs": "1",
    "batch_size": "8",
    "precision": "float32",
    # Quantization takes longer than training.
    "quantize": "none",
}

# Addresses, because they need no DNS. Sorted as text, the second comes first, like algo-10 and
# algo-2.
HOSTS = ("127.0.0.2", "127.0.0.10")

IS_ROOT = os.geteuid() == 0


def _can_unshare() -> bool:
    """Return whether root may create namespaces here; in most containers it may not."""
    program = shutil.which("unshare")
    if not (IS_ROOT and program):
        return False
    command = [program, "--mount", "--net", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


CAN_UNSHARE = _can_unshare()

needs_unshare = pytest.mark.skipif(
    not CAN_UNSHARE, reason="mounts of the test's own need root and unshare(1)"
)


def square(class_name: str, number: int, *, suffix: str = "PNG", mode: str = "RGB") -> bytes:
    """Return a noisy image in the color of a class, as the bytes of a file."""
    color = COLORS[class_name]
    noise = np.random.default_rng((*color, number)).normal(0, 30, (20, 24, 3))
    pixels = np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, suffix)
    return file.getvalue()


def write_images(
    directory: Path, *, per_class: int = 10, classes: Sequence[str] = tuple(COLORS), first: int = 0
) -> None:
    """Fill a channel with class folders."""
    for class_name in classes:
        (directory / class_name).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + per_class):
            path = directory / class_name / f"{number}.png"
            path.write_bytes(square(class_name, number))


def write_json(base_dir: Path, name: str, document: object) -> None:
    """Write one of the platform's files."""
    path = base_dir / "input" / "config" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")


def configure(base_dir: Path, hyperparameters: Mapping[str, str], *channels: str) -> None:
    """Write hyperparameters.json and inputdataconfig.json."""
    write_json(base_dir, "hyperparameters.json", dict(hyperparameters))
    channel = {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated"}
    write_json(base_dir, "inputdataconfig.json", dict.fromkeys(channels, channel))


def make_job(base_dir: Path, **hyperparameters: str) -> Path:
    """Make a job whose training channel has ten images of three classes; return `base_dir`."""
    write_images(base_dir / "input" / "data" / "training")
    configure(base_dir, {**HYPERPARAMETERS, **hyperparameters}, "training")
    return base_dir


def make_hosts(directory: Path, **hyperparameters: str) -> list[Path]:
    """Make a job of two hosts, each with a separate /opt/ml; rank 0 is the second."""
    directories = [make_job(directory / host, **hyperparameters) for host in HOSTS]
    for base_dir, host in zip(directories, HOSTS, strict=True):
        resources = {
            "current_host": host,
            "hosts": list(HOSTS),
            "network_interface_name": "lo",
            "current_instance_type": "ml.c7i.large",
            "topology": None,
        }
        write_json(base_dir, "resourceconfig.json", resources)
    return directories


def failure(base_dir: Path) -> str:
    """Return the failure reason that SageMaker would show."""
    return (base_dir / "output" / "failure").read_text(encoding="utf-8")


def metrics(base_dir: Path) -> dict[str, object]:
    """Return metrics.json without the speeds, which differ between runs."""
    report: dict[str, object] = json.loads(
        (base_dir / "output" / "data" / "metrics.json").read_text(encoding="utf-8")
    )
    history = report["history"]
    assert isinstance(history, list)
    for epoch in history:
        del epoch["images_per_second"]
    return report


class Finished(NamedTuple):
    code: int
    output: str


def train(
    base_dir: Path, *arguments: str, before: Sequence[str] = (), **variables: str
) -> Finished:
    """Run the real program until it exits; `before` is a command that starts it."""
    with training(base_dir, *arguments, before=before, **variables) as process:
        output, _ = process.communicate()
    return Finished(process.returncode, output)


@contextmanager
def training_together(
    directories: Sequence[Path], **variables: str
) -> Iterator[list[subprocess.Popen[str]]]:
    """Start the real program on every host of a job."""
    port = str(free_port())
    with ExitStack() as stack:
        yield [
            stack.enter_context(training(base_dir, **{"MASTER_PORT": port, **variables}))
            for base_dir in directories
        ]


def train_together(directories: Sequence[Path], **variables: str) -> list[Finished]:
    """Run the real program on every host of a job until all exit."""
    with training_together(directories, **variables) as processes:
        outputs = [process.communicate()[0] for process in processes]
    return [
        Finished(process.returncode, output)
        for process, output in zip(processes, outputs, strict=True)
    ]


@contextmanager
def training(
    base_dir: Path, *arguments: str, before: Sequence[str] = (), **variables: str
) -> Iterator[subprocess.Popen[str]]:
    """Start the real program as the container image does; kill it when the block ends."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "SAGEMAKER_BASE_DIR": str(base_dir),
        **variables,
    }
    with subprocess.Popen(
        [*before, sys.executable, "-m", "container.training", *(arguments or ("train",))],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], pattern: str) -> str:
    """Read the log up to the first line that matches `pattern`; return it."""
    assert process.stdout is not None
    log = ""
    for line in process.stdout:
        log += line
        if re.search(pattern, line):
            return log
    message = f"no line with {pattern!r} in:\n{log}"
    raise AssertionError(message)


@contextmanager
def _process_state_kept() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in signals.items():
            signal.signal(number, handler)
        root.handlers[:] = handlers
        root.setLevel(level)


def train_here(base_dir: Path, *arguments: str) -> int:
    """Run the program in this process, without another import of torch; return its exit code."""
    with pytest.MonkeyPatch.context() as patch, _process_state_kept():
        patch.setenv("SAGEMAKER_BASE_DIR", str(base_dir))
        return main(arguments)
