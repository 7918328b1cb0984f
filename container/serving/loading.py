"""The application of a gunicorn worker. A thread loads the model while the worker answers /ping.

On a multi-model endpoint the platform requests each load.
"""

import logging
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path

from flask import Flask

from container.classifier.environment import base_dir
from container.classifier.errors import UserError
from container.classifier.machine import memory_limit_bytes
from container.classifier.manifest import Manifest
from container.serving.http.app import create_app
from container.serving.http.connection import start_read_watch
from container.serving.http.multi_model import create_multi_model_app
from container.serving.model.batching import Batching
from container.serving.model.memory import release_memory
from container.serving.model.pool import Pool
from container.serving.model.predictor import Predictor
from container.serving.model.registry import Registry
from container.serving.model.speed import shared_choice
from container.serving.settings import Settings
from container.serving.sizing import Sizing, models_budget, network_bytes, server_bytes

logger = logging.getLogger(__name__)

# gunicorn ends the server when a worker exits with this status.
BOOT_ERROR = 3


def application() -> Flask:
    """Create the application of a gunicorn worker."""
    settings = Settings.from_environment(os.environ)
    logging.basicConfig(
        stream=sys.stdout,
        level=settings.log_level,
        format="%(asctime)s %(levelname)s %(message)s",
    )
    directory = base_dir() / "model"
    sizing = Sizing.of_this_container(settings, directory)
    batching = Batching(
        max_batch_size=settings.max_batch_size,
        batch_timeout_seconds=settings.batch_timeout_seconds,
    )
    load = partial(
        Predictor.load,
        streams=sizing.streams,
        latency_threads=sizing.latency_threads,
        precision=settings.precision,
        batching=batching if sizing.batched else None,
    )
    start_read_watch()
    pool = Pool(sizing.images, sizing.batched)
    if settings.multi_model:
        registry = Registry(
            base_dir() / "models",
            budget=models_budget(
                settings, memory_limit_bytes(), server_bytes(batches=sizing.batched > 0)
            ),
            needed=partial(_loaded_bytes, sizing),
            load=load,
        )
        logger.info("models can be loaded, %s", sizing)
        return create_multi_model_app(registry, settings, pool)
    loading: Future[Predictor] = Future()
    threading.Thread(
        # A daemon thread does not delay the end of the process.
        target=load_or_exit,
        args=(loading, partial(load, directory, choice=shared_choice()), sizing),
        name="loading",
        daemon=True,
    ).start()
    return create_app(loading, settings, pool)


def _loaded_bytes(sizing: Sizing, directory: Path) -> int:
    """Return the peak memory of an artifact's model."""
    image_size = Manifest.read(directory).preprocessing.image_size
    return sizing.loaded_bytes(network_bytes(directory), image_size)


def load_or_exit(
    loading: "Future[Predictor]", load: Callable[[], Predictor], sizing: Sizing
) -> None:
    """Load the artifact and complete the future; on failure log the reason and end the process."""
    try:
        predictor = load()
        # Compiling needs more memory than the compiled network.
        release_memory()
        loading.set_result(predictor)
    except Exception as error:
        # The message of a UserError is enough to fix it.
        traceback = None if isinstance(error, UserError) else error
        logger.error("the model cannot be served: %s", error, exc_info=traceback)  # noqa: TRY400
        logging.shutdown()
        # With this status the master ends, too; otherwise it would restart the worker forever.
        os._exit(BOOT_ERROR)
    logger.info("the model is served, %s", sizing)
