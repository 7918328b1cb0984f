"""A worker's start: answers at once, loads meanwhile, and ends the process if that fails."""

import logging
import os
import sys
import threading
from concurrent.futures import Future
from pathlib import Path

from flask import Flask
from gunicorn.arbiter import Arbiter

from classifier.environment import base_dir
from classifier.errors import UserError
from serving.app import create_app
from serving.body import start_watch
from serving.pool import Pool
from serving.predictor import Predictor
from serving.settings import Settings
from serving.sizing import Sizing

logger = logging.getLogger(__name__)


def application() -> Flask:
    """Make the application of a gunicorn worker."""
    settings = Settings.from_environment(os.environ)
    logging.basicConfig(
        stream=sys.stdout,
        level=settings.log_level,
        format="%(asctime)s %(levelname)s %(message)s",
    )
    directory = base_dir() / "model"
    sizing = Sizing.of_this_container(settings, directory)
    loading: Future[Predictor] = Future()
    threading.Thread(
        # A daemon: SIGTERM does not wait for it.
        target=load_or_exit,
        args=(loading, directory, sizing, settings.precision),
        name="loading",
        daemon=True,
    ).start()
    start_watch()
    return create_app(loading, settings, Pool(sizing.pictures))


def load_or_exit(
    loading: "Future[Predictor]", directory: Path, sizing: Sizing, precision: str
) -> None:
    """Load the artifact and complete the future, or say why not and end the process."""
    try:
        predictor = Predictor.load(
            directory,
            streams=sizing.streams,
            lone_threads=sizing.lone_threads,
            precision=precision,
        )
        loading.set_result(predictor)
    except Exception as error:
        # A person can mend a UserError by its sentence alone.
        traceback = None if isinstance(error, UserError) else error
        logger.error("the model cannot be served: %s", error, exc_info=traceback)  # noqa: TRY400
        logging.shutdown()
        # The master ends too, with this status, rather than start a worker again and again.
        os._exit(Arbiter.WORKER_BOOT_ERROR)
    logger.info("the model is served, %s", sizing)
