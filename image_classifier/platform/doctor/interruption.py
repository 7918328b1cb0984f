"""The interruption of a training: SIGTERM, and the restart with checkpoints."""

import os
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from image_classifier.platform.doctor.examination import Examination
from image_classifier.platform.doctor.job import Job, Result, run
from image_classifier.platform.sandbox.launch import POLL_SECONDS, Running

# A job that is shorter cannot be interrupted reliably.
_MIN_SECONDS = 1.0

# A training writes its last checkpoint after SIGTERM: a partial file, which is then renamed, and
# some add a link to the newest one, and remove the oldest.
_LAST_STATES = 8

_KILL_POLL_SECONDS = 0.005

# Fraction of the job's time after which it is interrupted at the latest.
_INTERRUPTION = 0.6


class _StuckError(Exception):
    """The job does not end after SIGTERM."""


def check(examination: Examination, job: Job, first: Result) -> None:
    """Interrupt a job as a spot instance does, and restart it, as the job that gave `first`."""
    report, seconds = examination.report, first.seconds
    if seconds < _MIN_SECONDS:
        for case_id in ("sigterm", "checkpoint-resume"):
            report.skip(
                case_id,
                f"the job takes only {seconds:.1f} s: give --hyperparameters of a longer one",
            )
        return
    checkpoints = examination.folder / "saved"
    checkpoints.mkdir()
    job = replace(job, checkpoints=checkpoints)
    is_late = True

    def interrupt(running: Running) -> None:
        nonlocal is_late
        deadline = time.monotonic() + seconds * _INTERRUPTION
        while (
            running.exit_code() is None and time.monotonic() < deadline and not _saved(checkpoints)
        ):
            time.sleep(POLL_SECONDS)
        if running.exit_code() is not None:
            return
        is_late = False
        _stop(examination, running, checkpoints)

    with suppress(_StuckError):
        run(examination, replace(job, name="interrupted"), interrupt)
    if is_late:
        for case_id in ("sigterm", "checkpoint-resume"):
            report.skip(case_id, "the job ended before it could be interrupted")
        return
    report.accept("sigterm")
    if report.is_open("checkpoint-resume"):
        _check_restarts(examination, job, checkpoints, has_model=first.has_model)


def _stop(examination: Examination, running: Running, checkpoints: Path) -> None:
    """Send SIGTERM, and check that the training ends because of it.

    Raises:
        _StuckError: it does not end.
    """
    report, grace = examination.report, examination.limits.training_grace
    is_ignored, start = running.ignores_sigterm(), time.monotonic()
    running.terminate()
    states = {_state(checkpoints)}
    while running.exit_code() is None:
        states.add(_state(checkpoints))
        if time.monotonic() - start > grace:
            message = f"the training still runs {grace:g} s after SIGTERM, and SageMaker kills it"
            report.fail("sigterm", message, f"last line of the log: {running.last_line()}")
            raise _StuckError
        time.sleep(POLL_SECONDS)
    seconds = time.monotonic() - start
    if running.exit_code() != 0:
        return
    evidence = f"it ended {seconds:.1f} s later with exit code 0"
    if is_ignored:
        message = "the training ignores SIGTERM, and continues to its end"
        report.fail("sigterm", message, f"{evidence}; its first process has no handler")
    elif len(states) > _LAST_STATES:
        message = "the training continues after SIGTERM, and SageMaker kills it after 120 s"
        report.fail(
            "sigterm", message, f"{evidence}, after {len(states) - 1} changes of checkpoints"
        )


def _check_restarts(
    examination: Examination, job: Job, checkpoints: Path, *, has_model: bool
) -> None:
    """Restart a training, kill it while it saves a checkpoint, and restart it once more."""
    report = examination.report
    if not _saved(checkpoints):
        reason = "the interrupted training left no file in /opt/ml/checkpoints"
        report.skip("checkpoint-resume", reason)
        return
    is_killed = False

    def kill(running: Running) -> None:
        nonlocal is_killed
        before = _state(checkpoints)
        while running.exit_code() is None and not is_killed:
            time.sleep(_KILL_POLL_SECONDS)
            if _state(checkpoints) != before:
                running.kill()
                is_killed = True

    what = "interrupted"
    result, is_read = _restart(examination, replace(job, name="restarted"), checkpoints, kill)
    if is_killed and is_read:
        what = "killed while it saved a checkpoint"
        again = replace(job, name="restarted-again")
        result, is_read = _restart(examination, again, checkpoints, lambda _running: None)
    if not is_read:
        names = ", ".join(path.name for path in _saved(checkpoints)[:3])
        report.fail(
            "checkpoint-resume",
            "a restarted training does not read its checkpoints, and starts from the beginning",
            f"not read: {names}",
        )
    elif not result.is_success or (has_model and not result.has_model):
        report.fail(
            "checkpoint-resume",
            f"a training that was {what}, and restarted with its checkpoints, fails",
            f"exit code {result.exit_code}; {result.last_line}",
        )
    report.accept("checkpoint-resume")


def _restart(
    examination: Examination, job: Job, checkpoints: Path, while_running: Callable[[Running], None]
) -> tuple[Result, bool]:
    """Run a job that has checkpoints; return its result, and whether it has read one of them."""
    with ExitStack() as stack:
        # Open, so that a file is found that the training replaces.
        files = [stack.enter_context(path.open("rb")) for path in _saved(checkpoints)]
        can_see_reads = _shows_reads(examination.folder)
        for file in files:
            _mark_as_unread(file)
        result = run(examination, job, while_running)
        return result, not can_see_reads or any(map(_was_read, files))


def _state(folder: Path) -> frozenset[tuple[str, int, int]]:
    """Return names, sizes and times of all files."""
    found = set()
    for path in folder.rglob("*"):
        # One may be renamed meanwhile.
        with suppress(OSError):
            status = path.stat()
            found.add((path.name, status.st_size, status.st_mtime_ns))
    return frozenset(found)


def _saved(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]


def _shows_reads(folder: Path) -> bool:
    """Return whether the file system records when a file is read."""
    probe = folder / "probe"
    probe.write_bytes(b"probe")
    with probe.open("rb") as file:
        _mark_as_unread(file)
        probe.read_bytes()
        return _was_read(file)


def _mark_as_unread(file: BinaryIO) -> None:
    os.utime(file.fileno(), ns=(0, os.fstat(file.fileno()).st_mtime_ns))


def _was_read(file: BinaryIO) -> bool:
    return os.fstat(file.fileno()).st_atime_ns > 0
