"""One trial of a tuning on this machine: the training program as a process, its log read."""

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from classifier.errors import UserError
from local_test import opt_ml, processes
from local_test.errors import UserError as LocalError

LOG = "training.log"


class TrialFailedError(Exception):
    """A trial that came to no end; the others go on."""


@dataclass(slots=True)
class Running:
    """The processes of all trials that run, to be ended together."""

    processes: set[subprocess.Popen[str]] = field(default_factory=set)
    is_stopped: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def stop(self) -> None:
        """End all processes, and start no more."""
        with self.lock:
            self.is_stopped = True
            for process in self.processes:
                process.kill()


def run(
    base_dir: Path,
    channels: Mapping[str, Path],
    hyperparameters: Mapping[str, str],
    objective: re.Pattern[str],
    *,
    threads: int,
    running: Running,
    report: Callable[[float, int], None],
) -> float:
    """Train once in `base_dir`; return the objective that was printed last.

    `report` gets every value of it and its place; what it raises ends the trial.

    Raises:
        TrialFailedError: the program failed, or printed no objective.
    """
    prepare(base_dir, channels, hyperparameters)
    last, count = None, 0
    with (base_dir / LOG).open("w", encoding="utf-8") as log:
        process = _start(base_dir, threads, running)
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        try:
            for line in process.stdout:
                log.write(line)
                if match := objective.search(line):
                    last, count = float(match[1]), count + 1
                    report(last, count)
        finally:
            process.kill()
            process.stdout.close()
            process.wait()
            running.processes.discard(process)
    if running.is_stopped:
        message = "stopped"
        raise TrialFailedError(message)
    failure = base_dir / opt_ml.FAILURE
    if failure.is_file() or last is None:
        reason = failure.read_text(errors="replace") if failure.is_file() else "no objective"
        raise TrialFailedError(reason.splitlines()[0][:300])
    return last


def prepare(
    base_dir: Path, channels: Mapping[str, Path], hyperparameters: Mapping[str, str]
) -> None:
    """Lay out /opt/ml for a trial; the channels are links, so that all share decoded pictures.

    Raises:
        UserError: the folder belongs to somebody else.
    """
    shutil.rmtree(base_dir, ignore_errors=True)
    try:
        opt_ml.create(base_dir)
    except LocalError as error:
        raise UserError(str(error)) from None
    for name, folder in channels.items():
        (base_dir / opt_ml.DATA / name).symlink_to(folder.resolve(), target_is_directory=True)
    opt_ml.write_config(base_dir, hyperparameters)


def _start(base_dir: Path, threads: int, running: Running) -> subprocess.Popen[str]:
    environment = os.environ | {
        "PYTHONPATH": str(processes.PROGRAMS),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "passive",
        "SAGEMAKER_BASE_DIR": str(base_dir.resolve()),
        "TRAINING_JOB_NAME": base_dir.name,
    }
    with running.lock:
        if running.is_stopped:
            message = "stopped"
            raise TrialFailedError(message)
        process = subprocess.Popen(
            [sys.executable, "-m", "training", "train"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        running.processes.add(process)
    return process
