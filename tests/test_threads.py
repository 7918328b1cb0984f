"""Threads that are there before the first request."""

import threading
from itertools import count

import pytest

from classifier.errors import UserError
from serving.threads import started


def test_all_threads_run_from_the_start() -> None:
    before = threading.active_count()

    executor = started(7, "some")

    assert threading.active_count() == before + 7
    assert executor.submit(lambda: 3).result(10) == 3
    assert threading.active_count() == before + 7
    executor.shutdown()


def test_too_few_threads_are_the_users_to_mend_and_none_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = threading.active_count()
    start, tries = threading.Thread.start, count()

    def start_three(thread: threading.Thread) -> None:
        if next(tries) >= 3:
            message = "can't start new thread"
            raise RuntimeError(message)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_three)
    with pytest.raises(UserError, match="allow more processes"):
        started(7, "some")

    for _ in range(100):
        if threading.active_count() == before:
            break
        threading.Event().wait(0.05)
    assert threading.active_count() == before
