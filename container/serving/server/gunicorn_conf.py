"""Settings and hooks of gunicorn. A request passes `server.admission`, then `http.app`."""

import mmap
import os
import resource

from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from container.classifier.environment import base_dir
from container.classifier.machine import gpu_count
from container.serving.http.metrics import Metrics, shared_table
from container.serving.limits import heartbeat_dir
from container.serving.model.slots import Slots
from container.serving.model.speed import shared_choice
from container.serving.server.drain import Worker, is_stopping
from container.serving.settings import Settings
from container.serving.sizing import Sizing

_settings = Settings.from_environment(os.environ)
_sizing = Sizing.of_this_container(_settings, base_dir() / "model")
_table = shared_table(_sizing.workers)
# Here, before the workers are forked: all serve the same precision.
shared_choice()
_free_rows = list(range(_sizing.workers))
_max_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 100
_max_queued = min(_sizing.queue, _max_files // 4)

wsgi_app = "container.serving.loading:application()"
worker_class = "container.serving.server.drain.Worker"
bind = f"0.0.0.0:{_settings.port}"
# Few processes, because the threads of one share a network, and OpenVINO releases the GIL. With
# two processes, kept connections are spread unevenly, and half of the CPUs were idle.
workers = _sizing.workers
# 32 more than can be admitted and queued: for /ping, rejections, loads of models.
threads = _sizing.threads + _max_queued + 32
# A worker without free file descriptors ends. A thread that waits for a request has one too.
worker_connections = min(threads + 2048, _max_files - threads)
# Idle connections occupy no thread, and SageMaker reuses them.
keepalive = 75
# For a worker whose event loop hangs: predictions do not block the loop.
timeout = _settings.timeout_seconds + 30
# SageMaker sends SIGKILL 30 s after SIGTERM.
graceful_timeout = 25
worker_tmp_dir = heartbeat_dir()
control_socket_disable = True


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
    from container.serving.server.admission import Admission  # noqa: PLC0415 - not for the master

    app, metrics = worker.wsgi, Metrics(_table, worker.row)
    app.extensions["metrics"] = metrics
    slots = Slots(
        _sizing.threads,
        max_queued=_max_queued,
        # The rest is for its images. Then a rejection costs nearly as much as a prediction.
        timeout=0.75 * _settings.wait_seconds,
        on_queue=metrics.note_queue,
    )
    app.wsgi_app = Admission(app.wsgi_app, slots, metrics)
    if not _settings.multi_model:
        app.extensions["loading"].add_done_callback(lambda _: worker.is_loaded.write(b"1"))


def child_exit(arbiter: Arbiter, worker: Worker) -> None:
    """End the server if the next worker would die too, or lacks models that SageMaker loaded."""
    _free_rows.append(worker.row)
    if not worker.is_loaded[0] and not is_stopping(arbiter):
        raise HaltServer("the worker and its models are lost", Arbiter.WORKER_BOOT_ERROR)
