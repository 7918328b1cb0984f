"""The run of a job on an MLflow tracking server, if MLFLOW_TRACKING_URI names one.

A thread sends everything, so the training does not wait for the server. A failure of the server
ends the tracking with one warning, and never the job.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from container.classifier.environment import TRACKING_VARIABLE
from container.training.sagemaker.stop import Stop

logger = logging.getLogger(__name__)

EXPERIMENT_VARIABLE = "MLFLOW_EXPERIMENT_NAME"
EXPERIMENT = "image-classifier"

# For variables that are unset. MLflow's own limits are 120 s and 7 retries.
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_FILE_STORE": "true",
}

# MLflow's limits: characters of a parameter's value, and parameters of a request.
MAX_VALUE, MAX_BATCH = 6000, 100

# The longest that the end of a job waits for the server: until it has everything; and until it
# answers at all, or of a stopped job.
UPLOAD_SECONDS, ANSWER_SECONDS = 600.0, 20.0

# Recorded tensors can be gigabytes.
TENSORS = "debug"


class Tracker(AbstractContextManager["Tracker"]):
    """A run on the tracking server, or nothing without one; it ends with the `with` block."""

    def __init__(self, stop: Stop) -> None:
        """Prepare; `start` creates the run. A job that is stopped uploads nothing."""
        self._stop = stop
        # Each sends something with MLflow's client to the run of an ID; None is the end.
        self._tasks: SimpleQueue[Callable[[Any, str], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._has_answered = threading.Event()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the run; wait until the server has everything, for a limited time."""
        if self._thread is None:
            return
        status = "FINISHED" if kind is None else "FAILED"
        if self._stop.requested:
            status = "KILLED"
        self._tasks.put(lambda client, run: client.set_terminated(run, status))
        self._tasks.put(None)
        start = time.monotonic()
        while self._thread.is_alive():
            self._thread.join(0.1)
            is_short = self._stop.requested or not self._has_answered.is_set()
            if time.monotonic() - start > (ANSWER_SECONDS if is_short else UPLOAD_SECONDS):
                logger.warning("the MLflow server does not answer: its run is incomplete")
                return

    def start(self, name: str | None, parameters: Mapping[str, object]) -> None:
        """Create the run with its parameters; only the first rank may.

        Args:
            name: name of the training job.
            parameters: values by name; None is left out.
        """
        if not os.environ.get(TRACKING_VARIABLE):
            return
        for variable, value in DEFAULTS.items():
            os.environ.setdefault(variable, value)
        self._tasks.put(lambda client, run: _log_parameters(client, run, parameters))
        # A daemon: it cannot delay the end of the process.
        self._thread = threading.Thread(target=self._send, args=[name], name="mlflow", daemon=True)
        self._thread.start()

    def log_metrics(self, values: Mapping[str, object], epoch: int) -> None:
        """Log the numbers among the values of an epoch."""
        if self._thread is None:
            return
        now = int(time.time() * 1000)
        numbers = {
            name: float(value)
            for name, value in values.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        self._tasks.put(lambda client, run: _log_metrics(client, run, numbers, now, epoch))

    def upload(self, folder: Path, name: str) -> None:
        """Upload a folder, without recorded tensors, as the artifact `name`."""

        def upload_files(client: Any, run: str) -> None:  # noqa: ANN401 - MLflow is optional
            for path in sorted(folder.rglob("*")):
                inner = path.relative_to(folder).parent
                if path.is_file() and inner.parts[:1] != (TENSORS,) and not self._stop.requested:
                    client.log_artifact(run, str(path), str(Path(name, inner)))

        self._tasks.put(upload_files)

    def _send(self, name: str | None) -> None:
        """Create the run, then send what is in the queue until its end."""
        try:
            from mlflow import tracking  # noqa: PLC0415 - optional, takes seconds

            client = tracking.MlflowClient(os.environ[TRACKING_VARIABLE])
            experiment = os.environ.get(EXPERIMENT_VARIABLE) or EXPERIMENT
            run = client.create_run(_experiment_id(client, experiment), run_name=name).info.run_id
            self._has_answered.set()
            logger.info("mlflow_run=%s", run)
            while task := self._tasks.get():
                task(client, run)
        except ModuleNotFoundError as error:
            logger.warning(
                "%s is set, but the package %s is missing: build the training container image "
                "with --build-arg MLFLOW=yes",
                TRACKING_VARIABLE,
                error.name,
            )
        except Exception as error:  # noqa: BLE001 - no failure of MLflow may end the training
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            # The address can contain a password.
            shown = first.replace(os.environ.get(TRACKING_VARIABLE, ""), TRACKING_VARIABLE)[:300]
            logger.warning("MLflow failed, and the job continues without it: %s", shown)


def _experiment_id(client: Any, name: str) -> str:  # noqa: ANN401
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name))


def _log_parameters(client: Any, run: str, parameters: Mapping[str, object]) -> None:  # noqa: ANN401
    from mlflow import entities  # noqa: PLC0415

    listed = [
        entities.Param(key, str(value)[:MAX_VALUE])
        for key, value in parameters.items()
        if value is not None
    ]
    for start in range(0, len(listed), MAX_BATCH):
        client.log_batch(run, params=listed[start : start + MAX_BATCH])


def _log_metrics(
    client: Any,  # noqa: ANN401
    run: str,
    values: Mapping[str, float],
    timestamp: int,
    epoch: int,
) -> None:
    from mlflow import entities  # noqa: PLC0415

    client.log_batch(run, [entities.Metric(n, v, timestamp, epoch) for n, v in values.items()])
