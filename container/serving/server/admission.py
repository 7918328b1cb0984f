"""Admission control: WSGI middleware that limits the requests in flight and in the queue."""

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Iterable
from http import HTTPStatus
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from container.serving.http.body import drain_body
from container.serving.http.connection import (
    ARRIVAL,
    FORCE_CLOSE,
    clear_read_deadline,
    connection_of,
)
from container.serving.http.errors import describe
from container.serving.http.metrics import Metrics
from container.serving.model.errors import Overloaded
from container.serving.settings import RETRY_AFTER_SECONDS

logger = logging.getLogger(__name__)

# For a client to send more of a body, or to read more of a response.
STALL_SECONDS = 10.0

REPORT_SECONDS = 1.0

# Of a rejected request. A larger body costs more than a new connection.
MAX_DRAINED_BYTES, DRAIN_SECONDS = 2**18, 1.0

STATUS = f"{HTTPStatus.SERVICE_UNAVAILABLE:d} {HTTPStatus.SERVICE_UNAVAILABLE.phrase}"
BODY = json.dumps(describe(Overloaded())).encode()
HEADERS = [
    ("Content-Type", "application/json"),
    ("Content-Length", str(len(BODY))),
    ("Retry-After", str(RETRY_AFTER_SECONDS)),
]


class Admission:
    """Admits invocations first come, first served, and rejects the excess before Flask.

    Other requests, such as `/ping` and the management of models, are always admitted.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        max_in_flight: int,
        max_queued: int,
        queue_timeout_seconds: float,
        metrics: Metrics,
    ) -> None:
        """Wrap an application; log the number of rejections once a second."""
        self._app, self._metrics = app, metrics
        self._free_slots, self._max_queued = max_in_flight, max_queued
        self._queue_timeout_seconds = queue_timeout_seconds
        self._lock = threading.Lock()
        self._queue: deque[threading.Lock] = deque()
        self._rejected = 0
        threading.Thread(target=self._report, name="rejections", daemon=True).start()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Respond to a request."""
        connection = connection_of(environ)
        clear_read_deadline(connection)
        if connection:
            connection.settimeout(STALL_SECONDS)
        if environ["REQUEST_METHOD"] != "POST":
            if environ.get("CONTENT_LENGTH", "0") != "0" or "HTTP_TRANSFER_ENCODING" in environ:
                # No handler reads this body, so the start of the next request is unknown.
                FORCE_CLOSE.get()()
            return self._app(environ, start_response)
        if environ["PATH_INFO"] == "/models":
            return self._app(environ, start_response)
        environ[ARRIVAL] = time.monotonic()
        if not self._admit():
            return self._reject(environ, start_response)
        try:
            return self._app(environ, start_response)
        finally:
            self._release()

    def _admit(self) -> bool:
        """Take a slot, waiting in the queue if it has room; return whether there is a slot."""
        with self._lock:
            if self._free_slots:
                self._free_slots -= 1
                return True
            if len(self._queue) >= self._max_queued:
                return False
            handover = threading.Lock()
            handover.acquire()
            self._queue.append(handover)
            self._metrics.note_queue(len(self._queue))
        if handover.acquire(timeout=self._queue_timeout_seconds):
            return True
        with self._lock:
            if handover not in self._queue:
                # Handed over at the moment of the timeout.
                return True
            self._queue.remove(handover)
            self._metrics.note_queue(len(self._queue))
        return False

    def _release(self) -> None:
        """Hand the slot over to the request that has waited longest."""
        with self._lock:
            if self._queue:
                self._queue.popleft().release()
                self._metrics.note_queue(len(self._queue))
            else:
                self._free_slots += 1

    def _reject(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        """Respond with 503; keep the connection if the body is small."""
        self._metrics.count_refused()
        self._metrics.count_request(HTTPStatus.SERVICE_UNAVAILABLE)
        with self._lock:
            self._rejected += 1
        length = int(environ.get("CONTENT_LENGTH") or MAX_DRAINED_BYTES + 1)
        if length > MAX_DRAINED_BYTES or not drain_body(environ, DRAIN_SECONDS):
            FORCE_CLOSE.get()()
        start_response(STATUS, HEADERS)
        return [BODY]

    def _report(self) -> None:
        while True:
            time.sleep(REPORT_SECONDS)
            with self._lock:
                rejected, self._rejected = self._rejected, 0
            if rejected:
                logger.warning("refused=%d waiting=%d", rejected, len(self._queue))
