"""The interruption of a training: SIGTERM, and the restart with checkpoints."""

import os
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from image_classifier.platform.doctor.examination import Examination
from image_classifier.platform.doctor.job import Job, run
from image_classifier.platform.sandbox.launch import POLL_SECONDS, Running

# A job that is shorter cannot be interrupted reliably.
_MIN_SECONDS = 1.0

# Of a job's time: when it is interrupted at the latest.
_INTERRUPTION = 0.6


class _StuckError(Exception):
    """The job does not end after SIGTERM."""


def check(examination: Examination, job: Job, seconds: float) -> None:
    """Interrupt a job as a spot instance does, and restart it."""
    report = examination.report
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
        running.terminate()
        grace = examination.limits.training_grace
        if running.wait(grace) is None:
            message = f"the training still runs {grace:g} s after SIGTERM, and SageMaker kills it"
            report.fail("sigterm", message, f"last line of the log: {running.last_line()}")
            raise _StuckError

    with suppress(_StuckError):
        run(examination, replace(job, name="interrupted"), interrupt)
    if is_late:
        for case_id in ("sigterm", "checkpoint-resume"):
            report.skip(case_id, "the job ended before it could be interrupted")
        return
    report.accept("sigterm")
    _check_resume(examination, replace(job, name="restarted"), checkpoints)


def _check_resume(examination: Examination, job: Job, checkpoints: Path) -> None:
    report = examination.report
    saved = _saved(checkpoints)
    if not saved:
        reason = "the interrupted training left no file in /opt/ml/checkpoints"
        report.skip("checkpoint-resume", reason)
        return
    with ExitStack() as stack:
        # Open, so that a file is found that the training replaces.
        files = [stack.enter_context(path.open("rb")) for path in saved]
        can_see_reads = _shows_reads(examination.folder)
        for file in files:
            _mark_as_unread(file)
        result = run(examination, job)
        is_read = any(map(_was_read, files))
    if not result.is_success or not result.has_model:
        report.fail(
            "checkpoint-resume",
            "a training that was interrupted and restarted with its checkpoints fails",
            f"exit code {result.exit_code}; {result.last_line}",
        )
    elif can_see_reads and not is_read:
        report.fail(
            "checkpoint-resume",
            "a restarted training does not read its checkpoints, and starts from the beginning",
            f"not read: {', '.join(path.name for path in saved[:3])}",
        )
    report.accept("checkpoint-resume")


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
