"""The training image's program: `python -m training train`."""

import logging
import sys
import traceback
from collections.abc import Sequence

from classifier.environment import base_dir
from classifier.errors import UserError
from training.environment import TrainingEnvironment
from training.stop import Stopped, StopRequest

logger = logging.getLogger("training")


def main(arguments: Sequence[str]) -> int:
    """Run the job; SageMaker reads the exit code and the file `output/failure`.

    The arguments are `train`, nothing at all, or whatever ContainerArguments says: none of them
    changes anything, since a job's settings come as hyperparameters.
    """
    stop = StopRequest()
    # Before torch is imported, which takes seconds in which a stop may come.
    stop.listen()
    _log_to_stdout()
    environment = TrainingEnvironment(base_dir=base_dir())
    if extra := [argument for argument in arguments if argument != "train"]:
        logger.warning("arguments not used: %s", " ".join(extra))
    try:
        with environment.locked():
            environment.forget_failure()
            from training import job  # noqa: PLC0415 - so that a stop is heard while it loads

            job.run(environment, stop)
    except Stopped:
        logger.info("stopped before the first step: there is no model to save")
    except UserError as error:
        logger.error("error: %s", error)  # noqa: TRY400 - a traceback would hide the sentence
        return _fail(environment, str(error))
    except Exception as error:
        logger.exception("the training failed")
        # The message before the traceback: SageMaker keeps the beginning.
        return _fail(environment, f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    return 0


class OneLine(logging.Formatter):
    """A message in one line: a file's name must not look like a line of metrics."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """Return the message with its line ends escaped."""
        return super().formatMessage(record).replace("\r", "\\r").replace("\n", "\\n")


def _log_to_stdout() -> None:
    # Nor need a file's name be UTF-8.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(OneLine("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def _fail(environment: TrainingEnvironment, reason: str) -> int:
    try:
        environment.write_failure(reason)
    except OSError as error:
        logger.error("the failure file cannot be written: %s", error)  # noqa: TRY400
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
