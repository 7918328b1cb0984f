"""Admission control: WSGI middleware that limits the requests in flight and in the queue."""

import json
import logging
import time
from collections import deque
from collections.abc import Iterable
from threading import Lock
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from container.serving.http import connection
from container.serving.http.body import drain_body
from container.serving.http.errors import describe
from container.serving.http.metrics import Metrics
from container.serving.model.errors import Overloaded

logger = logging.getLogger(__name__)

# For a rejected body, between two log lines, and the smallest limit of the queue.
DRAIN_SECONDS, REPORT_SECONDS, MIN_QUEUED = 1.0, 1.0, 16

BODY = json.dumps(describe(Overloaded())).encode()
TYPE, LENGTH = ("Content-Type", "application/json"), ("Content-Length", str(len(BODY)))


class Admission:
    """Admits invocations first come, first served, other requests always; rejects the excess."""

    def __init__(
        self, app: WSGIApplication, in_flight: int, queue: int, timeout: float, metrics: Metrics
    ) -> None:
        """Limit requests in flight, and requests that wait for a slot for `timeout` seconds."""
        self._app, self._timeout, self._metrics = app, timeout, metrics
        self._free_slots, self._max_queued = in_flight, queue
        # Not a semaphore: requests that arrive could overtake those that wait.
        self._queue: deque[Lock] = deque()
        self._lock, self._rejected = Lock(), 0
        self._reported, self._released, self._interval = time.monotonic(), 0.0, 1e-6

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Respond to a request."""
        connection.clear_read_deadline(connection.connection_of(environ))
        if environ["REQUEST_METHOD"] != "POST" or environ["PATH_INFO"] == "/models":
            return self._app(environ, start_response)
        environ[connection.ARRIVAL] = time.monotonic()
        if not self._admit():
            return self._reject(environ, start_response)
        try:
            return self._app(environ, start_response)
        finally:
            self._release()

    def _admit(self) -> bool:
        """Take a slot, waiting in the queue if it has room; return whether there is a slot."""
        handover = Lock()
        with self._lock:
            if self._free_slots:
                self._free_slots -= 1
                return True
            # Rejected at once, a request costs less than after the timeout.
            served_in_time = 1.2 * self._timeout / self._interval
            if len(self._queue) >= min(self._max_queued, max(served_in_time, MIN_QUEUED)):
                return False
            handover.acquire()
            self._queue.append(handover)
            self._metrics.note_queue(len(self._queue))
        if handover.acquire(timeout=self._timeout):
            return True
        with self._lock:
            # Else a slot was handed over at the moment of the timeout.
            is_late = handover in self._queue
            if is_late:
                self._queue.remove(handover)
                self._metrics.note_queue(len(self._queue))
        return not is_late

    def _release(self) -> None:
        """Hand the slot to the oldest request; while some wait, average the time between slots."""
        with self._lock:
            before, self._released = self._released, time.monotonic() if self._queue else 0.0
            if before and self._released:
                self._interval += 0.05 * (self._released - before - self._interval)
            if self._queue:
                self._queue.popleft().release()
                self._metrics.note_queue(len(self._queue))
            else:
                self._free_slots += 1

    def _reject(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        """Respond with 503; keep the connection if the body arrives at once."""
        is_counted = not connection.has_disconnected(connection.connection_of(environ))
        if is_counted:
            self._metrics.count_refused()
            self._metrics.count_request(Overloaded.code)
        with self._lock:
            self._rejected += is_counted
            if self._rejected and time.monotonic() > self._reported + REPORT_SECONDS:
                logger.warning("refused=%d waiting=%d", self._rejected, len(self._queue))
                self._rejected, self._reported = 0, time.monotonic()
        if not drain_body(environ, DRAIN_SECONDS):
            connection.FORCE_CLOSE.get()()
        start_response("503 Service Unavailable", [TYPE, LENGTH, ("Retry-After", "1")])
        return [BODY]
