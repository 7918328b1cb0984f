"""A thread pool, last-in first-out over idle threads."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeAlias, TypeVar

from container.classifier.errors import UserError

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

Task: TypeAlias = tuple[Future[Any], Callable[[], Any]]
Inbox: TypeAlias = SimpleQueue[Task]


class ThreadPool(Executor):
    """An executor that starts all threads at once and reuses the one that became idle last.

    `ThreadPoolExecutor` starts threads on demand, and a request fails if the container has reached
    its limit of processes by then. It also rotates over all threads, and their caches get cold.
    """

    def __init__(self, size: int, name: str) -> None:
        """Start `size` threads.

        Raises:
            UserError: the operating system does not allow so many.
        """
        self._lock = threading.Lock()
        self._tasks: deque[Task] = deque()
        self._idle: list[Inbox] = []
        try:
            for number in range(size):
                # Daemon threads do not delay the end of the process.
                thread = threading.Thread(target=self._work, name=f"{name}_{number}", daemon=True)
                thread.start()
        except RuntimeError as error:
            raise UserError(
                "the container cannot start as many threads as the server needs: "
                "allow more processes (docker run --pids-limit, ulimit -u)"
            ) from error

    def submit(
        self,
        function: Callable[Parameters, Result],
        /,
        *arguments: Parameters.args,
        **options: Parameters.kwargs,
    ) -> Future[Result]:
        """Call a function in an idle thread, or queue it, first come, first served."""
        future: Future[Result] = Future()
        task = (future, lambda: function(*arguments, **options))
        with self._lock:
            if not self._idle:
                self._tasks.append(task)
                return future
            inbox = self._idle.pop()
        inbox.put(task)
        return future

    def _work(self) -> None:
        inbox: Inbox = SimpleQueue()
        while True:
            # No variable for the task: it would keep the task alive until the next one.
            _run(*self._next(inbox))

    def _next(self, inbox: Inbox) -> Task:
        with self._lock:
            if self._tasks:
                return self._tasks.popleft()
            self._idle.append(inbox)
        return inbox.get()


def _run(future: Future[Any], call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001 - the future carries it
        future.set_exception(error)
        # Break the reference cycle of error, frame and future.
        del future, call
    else:
        future.set_result(result)
