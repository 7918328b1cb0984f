"""The training container image's program: `python -m container.training train`."""

import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence

from container.classifier.base_directory import base_dir
from container.classifier.errors import UserError
from container.training.sagemaker import supervisor
from container.training.sagemaker.environment import TrainingEnvironment
from container.training.sagemaker.stop import SIGNALS, Stopped, StopRequest
from container.training.sagemaker.supervisor import ConnectionLostError, Place

logger = logging.getLogger("training")


def main(arguments: Sequence[str]) -> int:
    """Run the job; SageMaker reads the exit code and the file `output/failure`.

    The arguments are `train`, nothing at all, or whatever ContainerArguments says: none of them
    changes anything, since a job's settings come as hyperparameters.
    """
    stop = StopRequest()
    # Before torch is imported, which takes seconds in which a stop may come.
    stop.listen()
    place = Place.given()
    if place is not None:
        supervisor.end_with_supervisor()
    _log_to_stdout(logging.WARNING if place is not None and place.rank else logging.INFO)
    environment = TrainingEnvironment(base_dir=base_dir())
    if extra := [argument for argument in arguments if argument != "train"]:
        logger.warning("arguments not used: %s", " ".join(extra))
    try:
        if place is None:
            return _run_alone_or_supervise(environment, stop)
        _run_job(environment, stop)
    except Stopped as stopped:
        logger.info("%s", stopped)
    except UserError as error:
        logger.error("error: %s", error)  # noqa: TRY400 - a traceback would hide the sentence
        # The process that was lost knows better why.
        is_follower = isinstance(error, ConnectionLostError)
        return _fail(environment, str(error), unless_there_is_one=is_follower)
    except Exception as error:
        logger.exception("the training failed")
        # The message before the traceback: SageMaker keeps the beginning.
        return _fail(environment, f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    return 0


def _run_alone_or_supervise(environment: TrainingEnvironment, stop: StopRequest) -> int:
    with environment.locked():
        environment.forget_failure()
        processes = supervisor.count_processes()
        if processes > 1 or len(environment.hosts().names) > 1:
            return supervisor.supervise(environment, stop, processes)
        _run_job(environment, stop)
        return 0


def _run_job(environment: TrainingEnvironment, stop: StopRequest) -> None:
    from container.training import job  # noqa: PLC0415 - so that a stop is heard while it loads

    job.run(environment, stop)


class OneLine(logging.Formatter):
    """A message in one line: a file's name must not look like a line of metrics."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """Return the message with its line ends escaped."""
        return super().formatMessage(record).replace("\r", "\\r").replace("\n", "\\n")


def _log_to_stdout(level: int) -> None:
    # Nor need a file's name be UTF-8.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(OneLine("%(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)


def _fail(
    environment: TrainingEnvironment, reason: str, *, unless_there_is_one: bool = False
) -> int:
    try:
        environment.write_failure(reason, unless_there_is_one=unless_there_is_one)
    except OSError as error:
        logger.error("the failure file cannot be written: %s", error)  # noqa: TRY400
    return 1


if __name__ == "__main__":
    exit_code = main(sys.argv[1:])
    # The work is done: a stop that comes while Python ends must not look like a failure. Python
    # would give a handler up then; this it keeps.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if exit_code and Place.given():
        # What still waits for a lost process, a thread of NCCL say, must not keep this one.
        os._exit(exit_code)
    sys.exit(exit_code)
