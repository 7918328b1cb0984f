"""Threads that are there before the first request."""

import threading
from concurrent.futures import ThreadPoolExecutor

from classifier.errors import UserError


def started(number: int, name: str) -> ThreadPoolExecutor:
    """Return an executor all of whose threads run.

    By itself it starts them as they are needed, and where the container's limit of processes is
    reached by then, requests would be lost.

    Raises:
        UserError: so many cannot be started.
    """
    executor = ThreadPoolExecutor(number, thread_name_prefix=name)
    together = threading.Barrier(number + 1)
    try:
        for _ in range(number):
            executor.submit(together.wait)
    except RuntimeError as error:
        together.abort()
        message = (
            "the container may not start as many threads as the server needs: "
            "allow more processes (docker run --pids-limit, ulimit -u)"
        )
        raise UserError(message) from error
    together.wait()
    return executor
