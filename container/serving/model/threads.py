"""Threads that are all there from the beginning, of which the one that rested last works next."""

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


class Threads(Executor):
    """An executor that never has to start a thread while a request waits for it.

    The standard one starts its threads as they are needed, and loses requests where the container's
    limit of processes is reached by then. Its threads take turns besides, each with caches of its
    own.
    """

    def __init__(self, number: int, name: str) -> None:
        """Start them.

        Raises:
            UserError: so many cannot be started.
        """
        self._lock = threading.Lock()
        self._waiting: deque[Task] = deque()
        self._resting: list[Inbox] = []
        try:
            for each in range(number):
                # Daemons: the process ends when its requests have ended.
                thread = threading.Thread(target=self._work, name=f"{name}_{each}", daemon=True)
                thread.start()
        except RuntimeError as error:
            message = (
                "the container may not start as many threads as the server needs: "
                "allow more processes (docker run --pids-limit, ulimit -u)"
            )
            raise UserError(message) from error

    def submit(
        self,
        function: Callable[Parameters, Result],
        /,
        *arguments: Parameters.args,
        **options: Parameters.kwargs,
    ) -> Future[Result]:
        """Have a thread call a function, or the next one that is free; first come, first served."""
        future: Future[Result] = Future()
        task = (future, lambda: function(*arguments, **options))
        with self._lock:
            if not self._resting:
                self._waiting.append(task)
                return future
            inbox = self._resting.pop()
        inbox.put(task)
        return future

    def _work(self) -> None:
        inbox: Inbox = SimpleQueue()
        while True:
            # No name for the task here: it would be kept until the next one.
            _run(*self._next(inbox))

    def _next(self, inbox: Inbox) -> Task:
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._resting.append(inbox)
        return inbox.get()


def _run(future: Future[Any], call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001 - it is for whoever waits for the result
        future.set_exception(error)
        # The error has this frame, the frame would have the future, and that the error.
        del future, call
    else:
        future.set_result(result)
