"""A training job on this machine, started and stopped as SageMaker does it."""

import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

from container.classifier.environment import BASE_DIR_VARIABLE, JOB_NAME_VARIABLE
from container.classifier.errors import UserError
from image_classifier.platform import opt_ml, processes
from image_classifier.platform.program import ROOT, handle_stop_signals
from image_classifier.platform.sandbox.launch import Launch, Running, StartError, Target
from image_classifier.platform.sandbox.process_target import ProcessTarget

LOG_FILE = "training.log"

# SageMaker's timeout from SIGTERM to SIGKILL.
GRACE_SECONDS = 120

_STDERR = 2


def job_variables() -> Mapping[str, str]:
    """Return the environment variables of a new training job."""
    name = time.strftime("local-%Y-%m-%d-%H-%M-%S")
    arn = f"arn:aws:sagemaker:local:0:training-job/{name}"
    return {JOB_NAME_VARIABLE: name, "TRAINING_JOB_ARN": arn, **processes.VARIABLES}


def as_process(
    base_dir: Path, root: Path = ROOT, environment: Mapping[str, str] | None = None
) -> tuple[Target, Launch]:
    """Return a training job as a plain process, with more environment variables.

    Raises:
        UserError: packages are missing.
    """
    processes.require("torch")
    base_dir = base_dir.resolve()
    variables = {**(environment or {}), **job_variables(), BASE_DIR_VARIABLE: str(base_dir)}
    command = [sys.executable, "-m", "container.training", "train"]
    # The files of the channels stay writable: they belong to this user.
    launch = Launch(base_dir=base_dir, folders={}, variables=variables)
    return ProcessTarget(command, cwd=root), launch


def train(
    base_dir: Path,
    program: tuple[Target, Launch],
    on_stop: Callable[[], None] = lambda: None,
    *,
    others: Sequence[tuple[Target, Launch]] = (),
    is_quiet: bool = False,
    interrupt_after: float | None = None,
) -> int:
    """Run a training job with its log on standard output and in a file; return its exit code.

    With `is_quiet` everything that it prints is in the file alone.
    On SIGTERM and SIGINT the program gets SIGTERM, and SIGKILL after SageMaker's timeout;
    `on_stop` is called.
    `others` are its programs on further hosts, whose logs are in their own folders.
    After `interrupt_after` seconds the program gets the same signals, and is started again with the
    checkpoints alone, as on a spot instance.

    Raises:
        UserError: the tree is not prepared, the program cannot be started, or it was killed because
            it used more memory than allowed.
        BrokenPipeError: the reader of standard output has ended, and so has the training.
    """
    if not (base_dir / opt_ml.HYPERPARAMETERS).is_file():
        raise UserError(
            f"nothing to train in {base_dir}: "
            "run `python -m image_classifier.platform prepare` first"
        )
    opt_ml.start_job(base_dir)
    with (base_dir / LOG_FILE).open("wb") as log, _started(others) as hosts:

        def attempt(seconds: float | None) -> int | None:
            return _run(program, log, on_stop, hosts, is_quiet=is_quiet, interrupt_after=seconds)

        def show(text: str) -> None:
            _copy([f"{text}\n".encode()], log, lambda: None, is_quiet=is_quiet)

        exit_code = attempt(interrupt_after)
        if exit_code is None:
            count = opt_ml.restart_job(base_dir)
            show(
                f"interrupted after {interrupt_after:g} s; restarted with {count} checkpoint files"
            )
            exit_code = attempt(None)
        elif interrupt_after is not None:
            show(f"not interrupted: the training ended within {interrupt_after:g} s")
        codes = [exit_code, *(host.wait(GRACE_SECONDS) for host in hosts)]
    return next(filter(None, codes), 0)


@contextmanager
def _started(programs: Sequence[tuple[Target, Launch]]) -> Iterator[Sequence[Running]]:
    """Run the programs of further hosts during a `with` block, each with a log in its folder.

    Raises:
        UserError: one cannot be started.
    """
    with ExitStack() as stack:
        hosts = []
        for target, launch in programs:
            log = stack.enter_context((launch.base_dir / LOG_FILE).open("wb"))
            try:
                host = target.start(replace(launch, output=(log.fileno(), log.fileno())))
            except StartError as error:
                raise UserError(f"{launch.host} cannot be started: {error}") from None
            stack.callback(host.close)
            hosts.append(host)
        yield hosts


def _run(
    program: tuple[Target, Launch],
    log: IO[bytes],
    on_stop: Callable[[], None],
    others: Sequence[Running],
    *,
    is_quiet: bool,
    interrupt_after: float | None,
) -> int | None:
    """Run a training program once; return its exit code, or None if it was interrupted.

    A stop ends the `others` too.
    """
    target, _ = program
    running, output = start(*program, is_quiet=is_quiet)
    is_stopped, is_interrupted, has_ended = (threading.Event() for _ in range(3))

    def stop_training() -> None:
        on_stop()
        is_stopped.set()

    def end() -> None:
        """End the program when it is stopped or interrupted."""
        if not is_stopped.wait(interrupt_after):
            is_interrupted.set()
        _end([running, *others], has_ended, is_repeated=target.is_container)

    killer = threading.Thread(target=end)
    killer.start()
    try:
        with output, handle_stop_signals(stop_training):
            is_read = _copy(output, log, stop_training, is_quiet=is_quiet)
            exit_code = running.wait(math.inf)
        reason = running.why_killed() if exit_code else None
    finally:
        was_stopped = is_stopped.is_set()
        has_ended.set()
        is_stopped.set()
        killer.join()
        running.close()
    if not is_read:
        raise BrokenPipeError
    if reason is not None:
        raise UserError(
            f"the training was killed: {reason}, or use a smaller batch_size or image_size"
        )
    return None if is_interrupted.is_set() and not was_stopped else exit_code or 0


def start(target: Target, launch: Launch, *, is_quiet: bool) -> tuple[Running, IO[bytes]]:
    """Start a program; return it and its standard output, with `is_quiet` standard error too.

    The output ends when no process of the program can write to it.

    Raises:
        UserError: it cannot be started.
    """
    reading, writing = os.pipe()
    try:
        output = (writing, writing if is_quiet else _STDERR)
        return target.start(replace(launch, output=output)), os.fdopen(reading, "rb")
    except StartError as error:
        os.close(reading)
        raise UserError(f"the training cannot be started: {error}") from None
    finally:
        os.close(writing)


def _end(programs: Sequence[Running], has_ended: threading.Event, *, is_repeated: bool) -> None:
    """Send SIGTERM, and SIGKILL to all processes after SageMaker's timeout.

    The first process of a container ignores SIGTERM until it has a handler: `is_repeated`.
    """
    deadline = time.monotonic() + GRACE_SECONDS
    seconds = 0
    while not has_ended.wait(seconds):
        for running in programs:
            if time.monotonic() > deadline:
                running.kill()
            elif is_repeated or not seconds:
                running.terminate()
        seconds = 1


def _copy(
    lines: Iterable[bytes], log: IO[bytes], stop: Callable[[], None], *, is_quiet: bool
) -> bool:
    """Copy the output of a training to its log and to standard output, until it ends.

    If the reader of standard output ends, the training is stopped, which leaves a checkpoint.

    Returns:
        Whether all of the output was read.
    """
    is_read = True
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
