"""Log a line per request with the time of each step, and update the metrics."""

import logging
import os
import re
import time
from collections.abc import Sequence

from flask import Request, Response
from werkzeug.exceptions import HTTPException

from container.classifier.media_types import TARGET_MODEL
from container.serving.http.connection import ARRIVAL
from container.serving.http.metrics import Metrics
from container.serving.model.outcome import Outcome

logger = logging.getLogger(__name__)

# A client may set the request ID. Values that do not match `ID` are ignored.
ID_HEADERS = ("X-Amzn-SageMaker-Inference-Id", "X-Request-Id")
ID = re.compile(r"[\w.:/=-]{1,128}", re.ASCII)


class RequestLog:
    """The log entry of one request."""

    def __init__(self, request: Request, metrics: Metrics) -> None:
        """Start the entry, after the request headers are read."""
        self._metrics = metrics
        now = time.monotonic()
        self.waited = now - request.environ.get(ARRIVAL, now)
        """Seconds that the request waited in the admission queue."""
        names = (request.headers.get(name, "") for name in ID_HEADERS)
        self.id = next((name for name in names if ID.fullmatch(name)), "") or os.urandom(8).hex()
        self._head = f"method={request.method} request={request.endpoint or 'unknown'}"
        model = (request.view_args or {}).get("model_name", "")
        for key, name in (("model", model), ("target", request.headers.get(TARGET_MODEL, ""))):
            if ID.fullmatch(name):
                self._head += f" {key}={name}"
        self._arrived = time.perf_counter() - self.waited
        self._body_read = 0.0
        self._steps = ""

    def note_body(self) -> None:
        """Record the time when the body has been read."""
        self._body_read = time.perf_counter()

    def note_images(self, outcomes: Sequence[Outcome]) -> None:
        """Record the time of each step, summed over the images."""
        began = min(each.began for each in outcomes)
        readable = [each for each in outcomes if not isinstance(each.result, HTTPException)]
        errors = len(outcomes) - len(readable)
        steps = {
            "read": [self._body_read - self._arrived - self.waited],
            "wait": [self.waited + began - self._body_read],
            "decode": [each.decoded - each.began for each in outcomes],
            "infer": [each.ended - each.decoded for each in readable],
        }
        self._steps = "".join(f" {name}={1000 * sum(took):.1f}" for name, took in steps.items())
        self._steps += f" images={len(outcomes)} errors={errors}"
        for name, took in steps.items():
            self._metrics.observe(name, took)
        self._metrics.count_images(predicted=len(readable), unreadable=errors)

    def write(self, response: Response) -> None:
        """Write the line, with times in milliseconds, and count the request."""
        self._metrics.count_request(response.status_code)
        logger.info(
            "%s status=%d milliseconds=%.1f%s id=%s",
            self._head,
            response.status_code,
            1000 * (time.perf_counter() - self._arrived),
            self._steps,
            self.id,
        )
