"""Settings and hooks of gunicorn.

A request passes `server.admission`, then `http.app`; its images pass `model.pool`.
"""

import mmap
import os
import resource

from gunicorn.arbiter import Arbiter

from container.classifier.base_directory import base_dir
from container.classifier.machine import gpu_count
from container.serving.http.metrics import Metrics, shared_table
from container.serving.server import drain
from container.serving.settings import Settings
from container.serving.sizing import Sizing

_settings = Settings.from_environment(os.environ)
_sizing = Sizing.of_this_container(_settings, base_dir() / "model")
_metrics_table = shared_table(_sizing.workers)
_free_rows = list(range(_sizing.workers))
_max_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 100
_max_queued = min(_sizing.queue, _max_files // 4)

# Threads beside those of admitted and queued requests: for /ping, rejections, loads of models.
SPARE_THREADS = 32

# Share of the waiting time that a request may spend in the queue. Later, when its body is read, a
# rejection costs nearly as much as a prediction.
QUEUE_SHARE = 0.75

wsgi_app = "container.serving.loading:application()"

# SageMaker connects from outside of the container.
bind = f"0.0.0.0:{_settings.port}"

# Few processes, because the threads of one share a network, and OpenVINO releases the GIL. With
# two processes, kept connections are spread unevenly, and half of the CPUs were idle.
workers = _sizing.workers
worker_class = "container.serving.server.drain.Worker"

threads = _sizing.threads + _max_queued + SPARE_THREADS

# A worker without free file descriptors ends, and a thread that waits for a head has another one.
worker_connections = min(threads + 4096, _max_files - threads)

# Idle connections occupy no thread, and SageMaker reuses them.
keepalive = 75

# For a worker whose event loop hangs: a slow prediction does not block the loop. Longer than any
# client waits.
timeout = _settings.timeout_seconds + 30

# SageMaker sends SIGKILL 30 s after SIGTERM.
graceful_timeout = 25

# For the heartbeat files: writing to a slow disk would block the worker.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - in memory

# Its default place is the home folder, which may be read-only.
control_socket_disable = True

# `http.request_log` logs requests.
accesslog = None
errorlog = "-"

pre_request = drain.pre_request


def pre_fork(arbiter: Arbiter, worker: drain.Worker) -> None:  # noqa: ARG001 - gunicorn's signature
    """Assign a row of the metrics, and memory in which the worker reports that it is loaded."""
    # Workers that were added with a signal share the first row.
    worker.row = _free_rows.pop(0) if _free_rows else 0
    worker.is_loaded = mmap.mmap(-1, 1)


def post_fork(arbiter: Arbiter, worker: drain.Worker) -> None:  # noqa: ARG001 - gunicorn's signature
    """Assign one of several GPUs to the worker."""
    if gpu_count() > 1:
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", str(worker.row % gpu_count()))


def post_worker_init(worker: drain.Worker) -> None:
    """Put admission control in front of the application."""
    # Not above, because the master needs none of the packages.
    from container.serving.server.admission import Admission  # noqa: PLC0415

    app, metrics = worker.wsgi, Metrics(_metrics_table, worker.row)
    app.extensions["metrics"] = metrics
    app.wsgi_app = Admission(
        app.wsgi_app,
        max_in_flight=_sizing.threads,
        max_queued=_max_queued,
        queue_timeout_seconds=QUEUE_SHARE * _settings.wait_seconds,
        metrics=metrics,
    )
    if not _settings.multi_model:
        app.extensions["loading"].add_done_callback(lambda _: worker.is_loaded.write(b"1"))


def child_exit(arbiter: Arbiter, worker: drain.Worker) -> None:
    """End the server if a replacement of the worker would not serve.

    A worker that was killed while it loaded the model, for instance out of memory, would be killed
    again. On a multi-model endpoint the models that the platform has loaded are lost.
    """
    _free_rows.append(worker.row)
    if _settings.multi_model:
        drain.halt(arbiter, "the worker ended, and the loaded models with it")
    elif not worker.is_loaded[0]:
        drain.halt(arbiter, "the worker ended while it loaded the model")
