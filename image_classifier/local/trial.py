"""One trial of a tuning on this machine: the training program as a process, its log read."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Self, TextIO

from container.classifier.errors import UserError
from container.classifier.vocabulary import BASE_DIR_VARIABLE, JOB_NAME_VARIABLE
from image_classifier.platform import opt_ml, processes

LOG = "training.log"

# How the program's lines begin after which nothing changes the network, and of which a checkpoint
# is left: then the model is written, and made faster, and reports, for the best trial alone.
DECIDED = ("best_epoch=", "test_loss=")


class TrialFailedError(Exception):
    """A trial that came to no end; the others continue."""


class Program(NamedTuple):
    """A training program that runs; when its output ends, all its processes have."""

    pid: int
    output: TextIO


class Programs:
    """The training programs of all trials, which one process loads for all of them."""

    def __init__(self, threads: int) -> None:
        """Start that process; every program computes with so many threads."""
        self._socket, theirs = socket.socketpair()
        environment = os.environ | {
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": str(threads),
            "OMP_WAIT_POLICY": "passive",
        }
        self._loaded = subprocess.Popen(
            [sys.executable, "-m", "image_classifier.local.warm_program"],
            cwd=processes.ROOT,
            env=environment,
            stdin=theirs.fileno(),
            # A terminal's Ctrl-C comes to the launcher alone.
            start_new_session=True,
        )
        theirs.close()
        self._pids: set[int] = set()
        # A signal may come to the thread that has it.
        self._lock = threading.RLock()
        self.is_stopped = False

    def __enter__(self) -> Self:
        """Return these programs."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all."""
        self.stop()
        self._socket.close()
        self._loaded.wait()

    def start(self, base_dir: Path) -> Program:
        """Start the program in a prepared folder.

        Raises:
            TrialFailedError: all are stopped.
            UserError: the program cannot be loaded.
        """
        variables = {
            BASE_DIR_VARIABLE: str(base_dir.resolve()),
            JOB_NAME_VARIABLE: base_dir.name,
        }
        with self._lock:
            if self.is_stopped:
                message = "stopped"
                raise TrialFailedError(message)
            reading, writing = os.pipe()
            try:
                socket.send_fds(self._socket, [json.dumps(variables).encode()], [writing])
                answer = self._socket.recv(20)
            except OSError:
                answer = b""
            finally:
                os.close(writing)
            if not answer:
                os.close(reading)
                message = "the training program cannot be loaded: see the messages above"
                raise UserError(message)
            pid = int(answer)
            self._pids.add(pid)
            if self.is_stopped:
                # By a signal, meanwhile.
                self._kill(pid)
        return Program(pid, os.fdopen(reading, encoding="utf-8", errors="replace"))

    def end(self, program: Program) -> None:
        """End one, if it still runs, with all that it has started."""
        self._kill(program.pid)
        for _ in program.output:
            pass
        with self._lock:
            self._pids.discard(program.pid)
        program.output.close()

    def stop(self) -> None:
        """End all, and start no more."""
        with self._lock:
            self.is_stopped = True
            for pid in self._pids:
                self._kill(pid)

    @staticmethod
    def _kill(pid: int) -> None:
        # macOS raises the other one for processes that have ended.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


def run(
    base_dir: Path,
    channels: Mapping[str, Path],
    hyperparameters: Mapping[str, str],
    objective: re.Pattern[str],
    *,
    programs: Programs,
    report: Callable[[float, int], None],
) -> float:
    """Train once in `base_dir`, and make no model; return the objective that was printed last.

    `report` gets every epoch's value of it and its place; what it raises ends the trial.

    Raises:
        TrialFailedError: the program failed, or printed no objective.
    """
    shutil.rmtree(base_dir, ignore_errors=True)
    prepare(base_dir, channels, hyperparameters)
    # The program checks min_accuracy at the very end.
    decided = () if "min_accuracy" in hyperparameters else DECIDED
    last, count = None, 0
    with _lines(base_dir, programs) as lines:
        for line in lines:
            match = objective.search(line)
            if match is not None:
                last = float(match[1])
            if line.startswith(DECIDED):
                # Of the test there is no value before its own line.
                if line.startswith(decided) and last is not None:
                    break
            elif match is not None:
                count += 1
                report(float(match[1]), count)
    if last is None:
        message = "no objective"
        raise TrialFailedError(message)
    return last


def finish(base_dir: Path, programs: Programs) -> None:
    """Let a trial that was run make its model, from the checkpoint that it has left.

    Raises:
        TrialFailedError: the program failed.
    """
    with _lines(base_dir, programs) as lines:
        for _ in lines:
            pass


@contextmanager
def _lines(base_dir: Path, programs: Programs) -> Iterator[Iterator[str]]:
    """Run the program in a prepared folder, until no more of its log is wanted; yield that."""
    program = programs.start(base_dir)
    try:
        with (base_dir / LOG).open("a", buffering=1, encoding="utf-8") as log:

            def logged() -> Iterator[str]:
                for line in program.output:
                    log.write(line)
                    yield line

            yield logged()
    finally:
        programs.end(program)
    if programs.is_stopped:
        message = "stopped"
        raise TrialFailedError(message)
    failure = base_dir / opt_ml.FAILURE
    if failure.is_file():
        reason = failure.read_text(encoding="utf-8", errors="replace")
        raise TrialFailedError(reason.splitlines()[0][:300])


def prepare(
    base_dir: Path, channels: Mapping[str, Path], hyperparameters: Mapping[str, str]
) -> None:
    """Lay out /opt/ml for a job; the channels are links, so that all share decoded images.

    Of the job before, the checkpoint stays, for one of the same data and hyperparameters.

    Raises:
        UserError: the folder belongs to another user.
    """
    for name in ("input", "model", "output"):
        shutil.rmtree(base_dir / name, ignore_errors=True)
    opt_ml.create(base_dir)
    for name, folder in channels.items():
        (base_dir / opt_ml.DATA / name).symlink_to(folder.resolve(), target_is_directory=True)
    opt_ml.write_config(base_dir, hyperparameters)
