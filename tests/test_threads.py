"""Threads that are there from the beginning."""

import gc
import threading
import time
import weakref
from collections import Counter
from itertools import count

import pytest

from container.classifier.errors import UserError
from container.serving.model.threads import ThreadPool


def test_who_finds_no_thread_free_waits_in_turn() -> None:
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


def test_the_thread_that_rested_last_works_next() -> None:
    threads = ThreadPool(5, "some")

    used = Counter[int]()
    for _ in range(50):
        used[threads.submit(threading.get_ident).result(10)] += 1
        # Until it has come to its rest. On a busy machine that may be too short, now and then.
        time.sleep(0.01)

    # In turns each would have had ten.
    assert max(used.values()) > 25


def test_an_error_is_its_callers_and_keeps_nothing() -> None:
    class Model:
        pass

    def fail(_model: Model) -> None:
        message = "no"
        raise ValueError(message)

    threads, model = ThreadPool(1, "some"), Model()
    last = weakref.ref(model)
    gc.disable()
    try:
        future = threads.submit(fail, model)
        with pytest.raises(ValueError, match="no"):
            future.result(10)
        del future, model
        threads.submit(int).result(10)

        assert last() is None
    finally:
        gc.enable()


def test_too_few_threads_are_the_users_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    start, tries = threading.Thread.start, count()

    def start_three(thread: threading.Thread) -> None:
        if next(tries) >= 3:
            message = "can't start new thread"
            raise RuntimeError(message)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_three)
    with pytest.raises(UserError, match="allow more processes"):
        ThreadPool(7, "some")
