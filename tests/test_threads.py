"""The thread pool that starts all its threads at once."""

import gc
import threading
import time
import weakref
from collections import Counter
from itertools import count

import pytest

from container.classifier.errors import UserError
from container.serving.model.threads import ThreadPool


def test_tasks_run_in_order_when_no_thread_is_idle() -> None:
    threads, release, done = ThreadPool(1, "some"), threading.Event(), list[int]()
    busy = threads.submit(release.wait, 10)

    waiting = [threads.submit(done.append, number) for number in range(20)]
    canceled = threads.submit(done.append, 99)

    assert not done
    assert canceled.cancel()
    release.set()
    assert busy.result(10)
    for each in waiting:
        each.result(10)
    assert done == list(range(20))
    assert threads.submit(int, "12", base=16).result(10) == 18


def test_thread_that_became_idle_last_runs_the_next_task() -> None:
    threads = ThreadPool(5, "some")

    used = Counter[int]()
    for _ in range(50):
        used[threads.submit(threading.get_ident).result(10)] += 1
        # Until the thread is idle. On a busy machine this is sometimes too short.
        time.sleep(0.01)

    # With round-robin each thread would have run ten.
    assert max(used.values()) > 25


def test_error_is_raised_by_the_future_and_its_arguments_are_freed() -> None:
    class Model:
        pass

    def fail(_model: Model) -> None:
        message = "no"
        raise ValueError(message)

    threads, model = ThreadPool(1, "some"), Model()
    reference = weakref.ref(model)
    gc.disable()
    try:
        future = threads.submit(fail, model)
        with pytest.raises(ValueError, match="no"):
            future.result(10)
        del future, model
        threads.submit(int).result(10)

        assert reference() is None
    finally:
        gc.enable()


def test_limit_of_threads_is_reported_as_a_user_error(monkeypatch: pytest.MonkeyPatch) -> None:
    start, tries = threading.Thread.start, count()

    def start_three(thread: threading.Thread) -> None:
        if next(tries) >= 3:
            message = "can't start new thread"
            raise RuntimeError(message)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_three)
    with pytest.raises(UserError, match="allow more processes"):
        ThreadPool(7, "some")
