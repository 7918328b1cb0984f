"""Admission control: WSGI middleware that limits the requests in flight and in the queue."""

import logging
import time
from collections.abc import Iterable
from threading import Lock
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from container.serving.http import connection
from container.serving.http.body import drain_body
from container.serving.http.errors import error_response
from container.serving.http.metrics import Metrics
from container.serving.model.errors import Overloaded
from container.serving.model.slots import Slots

logger = logging.getLogger(__name__)

# For a rejected body, and between two log lines.
DRAIN_SECONDS, REPORT_SECONDS = 1.0, 1.0

REJECTION = error_response(Overloaded())


class Admission:
    """Admits invocations first come, first served, other requests always; rejects the excess."""

    def __init__(self, app: WSGIApplication, slots: Slots, metrics: Metrics) -> None:
        """Put admission control in front of `app`."""
        self._app, self._slots, self._metrics = app, slots, metrics
        self._lock, self._logged, self._next_report = Lock(), metrics.refused, 0.0

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Respond to a request."""
        connection.clear_read_deadline(connection.connection_of(environ))
        if environ["REQUEST_METHOD"] != "POST" or environ["PATH_INFO"] == "/models":
            return self._app(environ, start_response)
        environ[connection.ARRIVAL] = time.monotonic()
        if not self._slots.acquire():
            return self._reject(environ, start_response)
        try:
            return self._app(environ, start_response)
        finally:
            self._slots.release()
            self._report()

    def _reject(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Respond with 503; keep the connection if the body arrives at once."""
        if not connection.has_disconnected(connection.connection_of(environ)):
            self._metrics.count_refused()
            self._metrics.count_request(REJECTION.status_code)
        if not drain_body(environ, DRAIN_SECONDS):
            connection.FORCE_CLOSE.get()()
        return REJECTION(environ, start_response)

    def _report(self) -> None:
        """Log the rejections of the last second, and the last ones once the queue is empty."""
        now = time.monotonic()
        if self._metrics.refused == self._logged or (self._slots and now < self._next_report):
            return
        with self._lock:
            count, self._logged = self._metrics.refused - self._logged, self._metrics.refused
            self._next_report = now + REPORT_SECONDS
        if count:
            logger.warning("refused=%d waiting=%d", count, len(self._slots))
