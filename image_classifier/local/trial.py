"""One trial of a local tuning job: a training process whose log is parsed."""

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
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TextIO

from container.classifier.environment import BASE_DIR_VARIABLE, JOB_NAME_VARIABLE
from container.classifier.errors import UserError
from image_classifier.platform import opt_ml, processes
from image_classifier.settings.settings_file import SettingsFile

LOG = processes.TRAINING_LOG

# Starts of the log lines after which the network does not change. A checkpoint exists then; only
# the best trial continues, with the export of its model, quantization and reports.
DECIDED = ("best_epoch=", "test_loss=")


class TrialFailedError(Exception):
    """A trial that failed; the others continue."""


class Programs(AbstractContextManager["Programs"]):
    """The training programs of all trials, forked from one process that has loaded the code."""

    def __init__(self, threads: int) -> None:
        """Start that process; every program computes with `threads` threads."""
        self._socket, child_end = socket.socketpair()
        environment = os.environ | {
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": str(threads),
            "OMP_WAIT_POLICY": "passive",
        }
        self._loader = subprocess.Popen(
            [sys.executable, "-m", "image_classifier.local.warm_program"],
            cwd=processes.ROOT,
            env=environment,
            stdin=child_end.fileno(),
            # A new session, so that Ctrl-C in a terminal does not reach it.
            start_new_session=True,
        )
        child_end.close()
        self._pids: set[int] = set()
        # A signal handler can run in the thread that holds it.
        self._lock = threading.RLock()
        self.is_stopped = False

    def __exit__(self, *_: object) -> None:
        """Stop all programs and the process that forks them."""
        self.stop()
        self._socket.close()
        self._loader.wait()

    @contextmanager
    def lines(self, base_dir: Path) -> Iterator[Iterator[str]]:
        """Run the program in a prepared folder during a `with` block; yield the lines of its log.

        The end of the block kills the program and all processes that it started.

        Raises:
            TrialFailedError: the program failed, or the programs were stopped.
            UserError: the program cannot be loaded.
        """
        pid, output = self._start(base_dir)
        try:
            with (base_dir / LOG).open("a", buffering=1, encoding="utf-8") as log:

                def read_lines() -> Iterator[str]:
                    for line in output:
                        log.write(line)
                        yield line

                yield read_lines()
        finally:
            self._kill(pid)
            # The output ends when all processes of the program have ended.
            for _ in output:
                pass
            with self._lock:
                self._pids.discard(pid)
            output.close()
        if self.is_stopped:
            raise TrialFailedError("stopped")
        failure = base_dir / opt_ml.FAILURE
        if failure.is_file():
            reason = failure.read_text(encoding="utf-8", errors="replace")
            raise TrialFailedError(reason.splitlines()[0][:300])

    def _start(self, base_dir: Path) -> tuple[int, TextIO]:
        """Return the process id of a new program, and its output."""
        variables = {BASE_DIR_VARIABLE: str(base_dir.resolve()), JOB_NAME_VARIABLE: base_dir.name}
        with self._lock:
            if self.is_stopped:
                raise TrialFailedError("stopped")
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
                raise UserError("the training program cannot be loaded: read the error above")
            pid = int(answer)
            self._pids.add(pid)
            if self.is_stopped:
                # A signal arrived after the check above.
                self._kill(pid)
        return pid, os.fdopen(reading, encoding="utf-8", errors="replace")

    def stop(self) -> None:
        """Kill all programs, and reject new ones."""
        with self._lock:
            self.is_stopped = True
            for pid in self._pids:
                self._kill(pid)

    @staticmethod
    def _kill(pid: int) -> None:
        # macOS raises PermissionError for processes that have ended.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


def find_channels(file: SettingsFile) -> dict[str, Path]:
    """Return the folder of every channel.

    Raises:
        UserError: a channel has no folder.
    """
    sample = processes.TEST_DIR / opt_ml.DATA
    if file.local_data == sample and not any(sample.glob("*/")):
        raise UserError(
            f"no images in {sample}: draw them with `python -m image_classifier.platform prepare`"
        )
    return file.local_channels()


def run(
    base_dir: Path,
    channels: Mapping[str, Path],
    hyperparameters: Mapping[str, str],
    objective: re.Pattern[str],
    *,
    programs: Programs,
    report: Callable[[float, int], None],
) -> float:
    """Train in `base_dir` without exporting a model; return the last objective in the log.

    `report` is called with every epoch's objective and its number; an exception that it raises
    ends the trial.

    Raises:
        TrialFailedError: the program failed, or logged no objective.
    """
    shutil.rmtree(base_dir, ignore_errors=True)
    prepare(base_dir, channels, hyperparameters)
    # The check of min_accuracy is the last step of the program.
    decided = () if "min_accuracy" in hyperparameters else DECIDED
    last, count = None, 0
    with programs.lines(base_dir) as lines:
        for line in lines:
            match = objective.search(line)
            if match is not None:
                last = float(match[1])
            if line.startswith(DECIDED):
                # The line of the test set is the first one with test metrics.
                if line.startswith(decided) and last is not None:
                    break
            elif match is not None:
                count += 1
                report(float(match[1]), count)
    if last is None:
        raise TrialFailedError("the log has no objective")
    return last


def prepare(
    base_dir: Path, channels: Mapping[str, Path], hyperparameters: Mapping[str, str]
) -> None:
    """Create /opt/ml for a job; channels are links, so that all jobs share decoded images.

    The previous job's checkpoints stay: a job of the same data and hyperparameters continues.

    Raises:
        UserError: the folder is not writable.
    """
    for name in ("input", "model", "output"):
        shutil.rmtree(base_dir / name, ignore_errors=True)
    opt_ml.create(base_dir)
    for name, folder in channels.items():
        (base_dir / opt_ml.DATA / name).symlink_to(folder.resolve(), target_is_directory=True)
    opt_ml.write_config(base_dir, hyperparameters)
