"""A training job on this machine, started and stopped as SageMaker does it."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from container.classifier.environment import BASE_DIR_VARIABLE, JOB_NAME_VARIABLE
from container.classifier.errors import UserError
from image_classifier.platform import opt_ml, processes
from image_classifier.platform.program import ROOT, Program, handle_stop_signals

LOG_FILE = "training.log"

# SageMaker's timeout from SIGTERM to SIGKILL.
GRACE_SECONDS = 120


def job_variables() -> Mapping[str, str]:
    """Return the environment variables of a new training job."""
    name = time.strftime("local-%Y-%m-%d-%H-%M-%S")
    arn = f"arn:aws:sagemaker:local:0:training-job/{name}"
    return {JOB_NAME_VARIABLE: name, "TRAINING_JOB_ARN": arn, **processes.VARIABLES}


def as_process(
    base_dir: Path, root: Path = ROOT, environment: Mapping[str, str] | None = None
) -> Program:
    """Return a training job as a plain process, with more environment variables.

    Raises:
        UserError: packages are missing.
    """
    processes.require("torch")
    return Program(
        command=[sys.executable, "-m", "container.training", "train"],
        variables={
            **(environment or {}),
            **job_variables(),
            BASE_DIR_VARIABLE: str(base_dir.resolve()),
        },
        cwd=root,
    )


def train(
    base_dir: Path,
    program: Program,
    on_stop: Callable[[], None] = lambda: None,
    *,
    is_quiet: bool = False,
) -> int:
    """Run a training job with its log on standard output and in a file; return its exit code.

    With `is_quiet` everything that it prints is in the file alone.
    On SIGTERM and SIGINT the program gets SIGTERM, and SIGKILL after SageMaker's timeout;
    `on_stop` is called.

    Raises:
        UserError: the tree is not prepared.
        BrokenPipeError: the reader of standard output has ended, and so has the training.
    """
    if not (base_dir / opt_ml.HYPERPARAMETERS).is_file():
        raise UserError(
            f"nothing to train in {base_dir}: "
            "run `python -m image_classifier.platform prepare` first"
        )
    opt_ml.start_job(base_dir)
    stderr = subprocess.STDOUT if is_quiet else None
    process = program.start(stdout=subprocess.PIPE, stderr=stderr)
    # Its children too: the log ends when no process can write to it.
    killer = threading.Timer(GRACE_SECONDS, program.kill, [process])
    is_stopped = threading.Event()

    def stop_training() -> None:
        on_stop()
        if not is_stopped.is_set():
            is_stopped.set()
            program.terminate(process)
            killer.start()

    try:
        with handle_stop_signals(stop_training), (base_dir / LOG_FILE).open("wb") as log:
            is_read = _copy(process, log, stop_training, is_quiet=is_quiet)
            exit_code = process.wait()
    finally:
        killer.cancel()
        if program.container is not None:
            # It is still there if its client was killed.
            program.kill(process)
    if not is_read:
        raise BrokenPipeError
    # Like shells and Docker: 137 for SIGKILL.
    return exit_code if exit_code >= 0 else 128 - exit_code


def _copy(
    process: subprocess.Popen[bytes], log: IO[bytes], stop: Callable[[], None], *, is_quiet: bool
) -> bool:
    """Copy the output of a training to its log and to standard output, until it ends.

    If the reader of standard output ends, the training is stopped, which leaves a checkpoint.

    Returns:
        Whether all of the output was read.
    """
    is_read = True
    if process.stdout is None:
        raise AssertionError
    with process.stdout as lines:
        for line in lines:
            log.write(line)
            log.flush()
            try:
                if is_read and not is_quiet:
                    print(line.decode(errors="backslashreplace"), end="", flush=True)
            except BrokenPipeError:
                is_read = False
                stop()
    return is_read
