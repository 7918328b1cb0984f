"""Settings and hooks of gunicorn. A request passes `server.admission`, then `http.app`."""

import mmap
import os

from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from container.classifier.environment import base_dir
from container.classifier.machine import gpu_count
from container.serving.http.connection import block_on_sigterm
from container.serving.http.metrics import Metrics, shared_table
from container.serving.limits import heartbeat_dir
from container.serving.model.slots import Slots
from container.serving.model.speed import shared_choice
from container.serving.server.admission import Admission
from container.serving.server.drain import Worker, listeners
from container.serving.settings import Settings
from container.serving.sizing import Sizing, max_open_files

_settings = Settings.from_environment(os.environ)
_sizing = Sizing.of_this_container(_settings, base_dir() / "model")
_table = shared_table(_sizing.workers)
shared_choice()  # before the workers are forked: all serve the same precision
_free_rows = list(range(_sizing.workers))

wsgi_app = "container.serving.loading:application()"
worker_class = "container.serving.server.drain.Worker"
bind = f"0.0.0.0:{_settings.port}"
workers = _sizing.workers
# 32 more than can be admitted and queued: for /ping, rejections, loads of models.
threads = _sizing.threads + _sizing.queue + 32
worker_connections = min(threads + 2048, max_open_files() - threads)
# Idle connections occupy no thread, and SageMaker reuses them.
keepalive = 75
# For a worker whose event loop hangs: predictions do not block the loop.
timeout = _settings.timeout_seconds + 30
# SageMaker sends SIGKILL 30 s after SIGTERM.
graceful_timeout = 25
worker_tmp_dir = heartbeat_dir()
control_socket_disable = True


def when_ready(arbiter: Arbiter) -> None:
    """Let no client connect after SIGTERM, while the workers accept the backlog."""
    block_on_sigterm(listeners(arbiter))


def pre_fork(_arbiter: Arbiter, worker: Worker) -> None:
    """Assign a row of the metrics, and memory in which the worker reports that it is loaded."""
    worker.row = _free_rows.pop() if _free_rows else 0
    worker.is_loaded = mmap.mmap(-1, 1)


def post_fork(_arbiter: Arbiter, worker: Worker) -> None:
    """Assign one of several GPUs to the worker."""
    if gpu_count() > 1:
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", str(worker.row % gpu_count()))


def post_worker_init(worker: Worker) -> None:
    """Put admission control in front of the application."""
    app, metrics = worker.wsgi, Metrics(_table, worker.row)
    app.extensions["metrics"] = metrics
    # The rest of the wait is for images. A longer one would make rejections as slow as predictions.
    timeout = 0.75 * _settings.wait_seconds
    slots = Slots(
        _sizing.threads, max_queued=_sizing.queue, timeout=timeout, on_queue=metrics.note_queue
    )
    app.wsgi_app = Admission(app.wsgi_app, slots, metrics)
    if not _settings.multi_model:
        app.extensions["loading"].add_done_callback(lambda _: worker.is_loaded.write(b"1"))


def child_exit(arbiter: Arbiter, worker: Worker) -> None:
    """End the server if the next worker would die too, or lacks models that SageMaker loaded."""
    _free_rows.append(worker.row)
    if not worker.is_loaded[0] and listeners(arbiter):
        raise HaltServer("the worker and its models are lost", Arbiter.WORKER_BOOT_ERROR)
