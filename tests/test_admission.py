"""Admission control and heartbeats, without gunicorn."""

import threading
import time
from collections.abc import Iterable
from io import BytesIO
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest

from container.serving.http.metrics import Metrics
from container.serving.model.slots import Slots
from container.serving.server.admission import Admission
from container.serving.server.heartbeat import ignore_suspension


def environ(number: int) -> WSGIEnvironment:
    request = {"REQUEST_METHOD": "POST", "PATH_INFO": "/invocations", "number": number}
    return request | {"wsgi.input": BytesIO()}


def test_next_request_does_not_overtake_one_that_waits() -> None:
    granted: list[int] = []
    metrics = Metrics()

    def respond(request: WSGIEnvironment, _start: StartResponse) -> Iterable[bytes]:
        granted.append(request["number"])
        deadline = time.monotonic() + 10
        while request["number"] == 1 and time.monotonic() < deadline:
            if "classifier_queue_length 1" in metrics.render():
                break
        return []

    slots = Slots(1, max_queued=10, timeout=30, on_queue=metrics.note_queue)
    admission = Admission(respond, slots, metrics)
    waiting = threading.Thread(target=admission, args=(environ(2), print))

    def send_two() -> None:
        admission(environ(1), lambda *_: print)
        admission(environ(3), lambda *_: print)

    first = threading.Thread(target=send_two)
    first.start()
    while not granted:
        time.sleep(0.001)
    waiting.start()
    for thread in (first, waiting):
        thread.join()

    assert granted == [1, 2, 3]


def test_request_that_could_not_be_served_in_time_does_not_enter_the_queue() -> None:
    lengths: list[int] = []
    slots = Slots(1, max_queued=100, timeout=0.2, on_queue=lengths.append)

    def wait_in_queue() -> threading.Thread:
        before = len(lengths)
        thread = threading.Thread(target=slots.acquire)
        thread.start()
        while len(lengths) == before:
            time.sleep(0.001)
        return thread

    assert slots.acquire()
    # Two releases with 0.4 s between them: no more than 16 requests may wait.
    waiting = [wait_in_queue()]
    slots.release()
    time.sleep(0.4)
    waiting.append(wait_in_queue())
    slots.release()
    waiting += [wait_in_queue() for _ in range(16)]

    assert not slots.acquire()
    for thread in waiting:
        thread.join()
    assert max(lengths) == 16


def test_suspension_is_no_silence_and_a_hang_is(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    heartbeat = clock
    poll = ignore_suspension(lambda: heartbeat)
    for _ in range(3):
        clock += 1000
        assert clock - poll() <= 2
        heartbeat = clock

    for _ in range(30):
        clock += 1
        last = poll()
    assert clock - last == pytest.approx(30, abs=3)
