"""Threads at the container's limit of processes."""

import logging
import threading

import pytest

from classifier.errors import UserError
from serving.threads import Threads


def allow(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Have so many more threads be started, as the kernel does at its limit."""
    start = threading.Thread.start
    allowed = threading.Semaphore(number)

    def start_if_allowed(thread: threading.Thread) -> None:
        if not allowed.acquire(blocking=False):
            message = "can't start new thread"
            raise RuntimeError(message)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_if_allowed)


def test_what_finds_no_thread_of_its_own_waits_for_another_s(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    allow(monkeypatch, 2)
    release = threading.Event()
    with Threads(5, "some") as threads:
        waiting = [threads.submit(release.wait, 10) for _ in range(4)]
        last = threads.submit(int, "7")
        release.set()

        assert last.result(10) == 7
        assert all(each.result(10) for each in waiting)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "allow more processes" in caplog.text


def test_no_thread_at_all_is_the_users_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch, 0)

    with pytest.raises(UserError, match="allow more processes"):
        Threads(5, "some")
