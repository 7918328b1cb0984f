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
from serving.limits import usable_processors
from serving.predictor import Predictor
from serving.settings import Settings

logger = logging.getLogger(__name__)


def application() -> Flask:
    """Make the application of a gunicorn worker."""
    settings = Settings.from_environment(os.environ)
    logging.basicConfig(
        stream=sys.stdout,
        level=settings.log_level,
        format="%(asctime)s %(levelname)s %(message)s",
    )
    loading: Future[Predictor] = Future()
    streams = max(1, usable_processors() // settings.workers)
    threading.Thread(
        # A daemon: SIGTERM does not wait for it.
        target=load_or_exit,
        args=(loading, base_dir() / "model", streams),
        name="loading",
        daemon=True,
    ).start()
    start_watch()
    return create_app(loading, settings)


def load_or_exit(loading: "Future[Predictor]", directory: Path, streams: int) -> None:
    """Load the artifact and complete the future, or say why not and end the process."""
    try:
        loading.set_result(Predictor.load(directory, streams=streams))
    except Exception as error:
        # A person can mend a UserError by its sentence alone.
        traceback = None if isinstance(error, UserError) else error
        logger.error("the model cannot be served: %s", error, exc_info=traceback)  # noqa: TRY400
        logging.shutdown()
        # The master ends too, with this status, rather than start a worker again and again.
        os._exit(Arbiter.WORKER_BOOT_ERROR)
    logger.info("the model is served, streams=%d", streams)
