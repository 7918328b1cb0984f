"""gunicorn's settings, each with its reason.

A request's way: `server.worker` lets it in, a thread reads it, `/ping` is answered there and then,
the images of `/invocations` get their turns in `model.pool`.
"""

import mmap
import os
import resource
import select
import signal
from concurrent.futures import Future
from functools import partial

from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from container.classifier.base_directory import base_dir
from container.classifier.machine import gpu_count
from container.serving.http.metrics import Metrics, shared_table
from container.serving.server.worker import Worker
from container.serving.settings import Settings
from container.serving.sizing import Sizing

_settings = Settings.from_environment(os.environ)
_sizing = Sizing.of_this_container(_settings, base_dir() / "model")
_metrics_table = shared_table(_sizing.workers)

# Of the time that a request may wait. Those let in have the rest to wait for their images' turn:
# to refuse them by then would cost as much as to answer them, but for the images.
OUTSIDE_SHARE = 0.75

wsgi_app = "container.serving.loading:application()"

# SageMaker connects from outside of the container.
bind = f"0.0.0.0:{_settings.port}"

# Few processes: threads share one copy of the network, and OpenVINO works outside of Python's
# lock. Two behind one socket left half the processors idle under kept-alive connections.
workers = _sizing.workers
worker_class = "container.serving.server.worker.Worker"

# More than there are places: /ping must find a thread within 2 s while every place is taken.
threads = _sizing.threads + 32

# All who wait and all who may have to be refused. A worker that runs out of files ends.
_most_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
worker_connections = min(threads + 4 * _sizing.queue, _most_files - 100)

# Idle connections cost no thread; SageMaker's side reuses them.
keepalive = 75

# A gthread worker reports that it is alive between requests, not after them: this ends one that
# hangs as a whole, never a slow prediction. It must be above what SageMaker waits all the same.
timeout = _settings.timeout_seconds + 30

# SageMaker sends SIGKILL 30 s after SIGTERM.
graceful_timeout = 25

# The file by which a worker shows that it lives; on a slow disk, writing it would block.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108  memory

# It would be made in the home folder, which may be read-only, and nobody talks to it.
control_socket_disable = True

# `container.serving.http.app` writes one line per request, none for /ping.
accesslog = None
errorlog = "-"


def pre_fork(arbiter: Arbiter, worker: Worker) -> None:
    """Give the master sight of whether the worker's model was loaded, the worker its metrics."""
    worker.model_loaded = mmap.mmap(-1, 1)
    taken = {other.metrics_row for other in arbiter.WORKERS.values()}
    # Somebody may have told gunicorn to start more, by a signal: those share a row.
    worker.metrics_row = min(set(range(_sizing.workers)) - taken, default=0)
    worker.metrics = Metrics(_metrics_table, worker.metrics_row)


def post_fork(arbiter: Arbiter, worker: Worker) -> None:  # noqa: ARG001  gunicorn's
    """Show each worker another GPU, where there are several."""
    if gpu_count() > 1:
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", str(worker.metrics_row % gpu_count()))


def post_worker_init(worker: Worker) -> None:
    """Set the door's numbers; tell the master of the loaded model; stop without losing anyone."""
    worker.places = _sizing.threads
    # Those who wait may not have all connections: /ping needs one.
    worker.queue = min(_sizing.queue, worker_connections // 2)
    worker.wait_seconds = OUTSIDE_SHARE * _settings.wait_seconds
    worker.wsgi.extensions["metrics"] = worker.metrics
    signal.signal(signal.SIGTERM, partial(_stop, worker))

    def tell(_loading: Future[object]) -> None:
        worker.model_loaded[0] = 1

    if _settings.multi_model:
        worker.manage_models()
    else:
        worker.wsgi.extensions["loading"].add_done_callback(tell)


def _stop(worker: Worker, *signal_and_frame: object) -> None:
    """Take in who has knocked, refuse the rest, then let gunicorn wait for the answers.

    By itself it leaves the door open until the last answer: clients connect, wait, and are cut.
    """

    def close_the_door() -> None:
        if worker.alive:
            worker.set_accept_enabled(False)
            for listener in worker.sockets:
                while select.select([listener], [], [], 0)[0]:
                    worker.make_room()
                    if worker.is_full():
                        break
                    worker.accept(listener)
                # At once: who comes between the two is cut. The master has closed its own, so this
                # is the last one; unless it only replaces this worker, whose successor continues
                # with it.
                listener.close()
            worker.sockets = []
            worker.handle_exit(*signal_and_frame)

    # In the worker's own loop: a signal comes in the middle of anything.
    worker.method_queue.defer(close_the_door)


def child_exit(arbiter: Arbiter, worker: Worker) -> None:
    """End when a worker was killed while loading, out of memory say: it would be again.

    On a multi-model endpoint end in any case. A new worker would have none of the models that the
    platform believes to be loaded; it knows that those of a container that ended are gone.

    Raises:
        HaltServer: which ends gunicorn with 3.
    """
    is_stopping = not arbiter.LISTENERS
    if not is_stopping and not worker.model_loaded[0]:
        message = (
            "the worker ended, and the loaded models with it"
            if _settings.multi_model
            else "the worker ended while it loaded the model"
        )
        raise HaltServer(message, Arbiter.WORKER_BOOT_ERROR)
