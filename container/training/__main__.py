"""The program of the training container image: `python -m container.training train`."""

import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence

from container.classifier.environment import base_dir
from container.classifier.errors import UserError
from container.classifier.locks import LockedError, locked
from container.training.fitting.time_budget import TimeBudget
from container.training.sagemaker import supervisor
from container.training.sagemaker.environment import TrainingEnvironment
from container.training.sagemaker.stop import SIGNALS, Stopped, StopRequest
from container.training.sagemaker.supervisor import ConnectionLostError, Rank

logger = logging.getLogger("training")

HELP = """usage: training [-h] [train]

Run the training job in /opt/ml (or in $SAGEMAKER_BASE_DIR): hyperparameters, channels and hosts
come from input/config and input/data; the model goes to model, the reports to output/data.
"""


def main(arguments: Sequence[str]) -> int:
    """Run the job; SageMaker reads the exit code and the file `output/failure`.

    SageMaker passes `train`, no argument, or ContainerArguments. All of them are ignored, because
    the settings of a job are hyperparameters.
    """
    if {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0
    stop = StopRequest()
    # Before torch is imported, which takes seconds.
    stop.listen()
    rank = Rank.given()
    if rank is not None:
        supervisor.end_with_supervisor()
    _log_to_stdout(logging.WARNING if rank is not None and rank.index else logging.INFO)
    environment = TrainingEnvironment(base_dir=base_dir())
    if extra := [argument for argument in arguments if argument != "train"]:
        logger.warning("arguments not used: %s", " ".join(extra))
    try:
        if rank is None:
            return _run_or_supervise(environment, stop)
        _run_job(environment, stop)
    except Stopped as stopped:
        logger.info("%s", stopped)
    except LockedError as error:
        # The folder belongs to the other training: a failure there would be taken for its own.
        logger.error("error: %s", error)  # noqa: TRY400
        return 1
    except UserError as error:
        logger.error("error: %s", error)  # noqa: TRY400 - a traceback would hide the message
        # The process that was lost writes the better reason.
        is_follower = isinstance(error, ConnectionLostError)
        return _fail(environment, str(error), keep_existing=is_follower)
    except Exception as error:
        logger.exception("the training failed")
        # The message first: SageMaker truncates the end.
        return _fail(environment, f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    return 0


def _run_or_supervise(environment: TrainingEnvironment, stop: StopRequest) -> int:
    with locked(environment.base_dir):
        environment.clear_failure()
        processes = supervisor.count_processes()
        if processes > 1 or len(environment.hosts().names) > 1:
            return supervisor.supervise(environment, stop, processes)
        _run_job(environment, stop)
        return 0


def _run_job(environment: TrainingEnvironment, stop: StopRequest) -> None:
    # Before the imports, which are a part of the job's time.
    budget = TimeBudget()
    supervisor.limit_threads_to_quota()
    from container.training import job  # noqa: PLC0415 - imports torch, after `listen` and `limit`

    job.run(environment, stop, budget)


class _OneLineFormatter(logging.Formatter):
    """Escapes the line ends of messages: a file name must not imitate a line of metrics."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        return super().formatMessage(record).replace("\r", "\\r").replace("\n", "\\n")


def _log_to_stdout(level: int) -> None:
    # File names may not be UTF-8.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_OneLineFormatter("%(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)


def _fail(environment: TrainingEnvironment, reason: str, *, keep_existing: bool = False) -> int:
    try:
        environment.write_failure(reason, keep_existing=keep_existing)
    except OSError as error:
        logger.error("the failure file cannot be written: %s", error)  # noqa: TRY400
    return 1


if __name__ == "__main__":
    exit_code = main(sys.argv[1:])
    # The job is done: a stop while Python shuts down must not look like a failure. Python removes
    # handlers then, but keeps ignored signals ignored.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if exit_code and Rank.given():
        # Threads of NCCL that wait for a lost process would keep this one from exiting.
        os._exit(exit_code)
    sys.exit(exit_code)
