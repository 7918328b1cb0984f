"""Routes of a single-model endpoint, and what all routes share: JSON errors, log, metrics."""

import math
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from flask import Flask, Response, current_app, g, jsonify, request
from werkzeug import Response as BaseResponse
from werkzeug.exceptions import HTTPException, RequestTimeout, ServiceUnavailable

from container.classifier.environment import base_dir
from container.classifier.machine import usable_cpus
from container.classifier.media_types import JSON, JSON_LINES
from container.serving.http.body import drain_body, read_body
from container.serving.http.connection import FORCE_CLOSE, connection_of, has_disconnected
from container.serving.http.decoding import JSON_LINES_TYPES, split_body
from container.serving.http.encoding import (
    choose_media_type,
    encode_response,
    ranked_classes,
)
from container.serving.http.errors import error_response
from container.serving.http.metrics import CONTENT_TYPE, Metrics
from container.serving.http.page import add_page
from container.serving.http.request_log import RequestLog
from container.serving.http.unpacking import check_encoding
from container.serving.model.errors import RETRY_AFTER_SECONDS, Overloaded
from container.serving.model.pool import Pool
from container.serving.model.predictor import Predictor
from container.serving.settings import TRANSFORM_MB, Settings

CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
REQUEST_ID = "X-Request-Id"

RESPONSE_CHUNK_BYTES = 2**20

# Time to read the rest of a body after an error.
DRAIN_SECONDS = 5.0

# Polled every few seconds: neither logged nor counted.
UNLOGGED = frozenset({"ping", "metrics"})


def create_app(loading: "Future[Predictor]", settings: Settings, pool: Pool) -> Flask:
    """Create the application. /ping returns 503 until `loading` is done."""
    app = new_app(settings)
    app.extensions["loading"] = loading

    @app.get("/ping")
    def ping() -> Response:
        _loaded(loading)
        return Response()

    @app.post("/invocations")
    def invocations() -> Response:
        return predict_images(settings, pool, nullcontext(_loaded(loading)))

    if settings.has_execution_parameters:

        @app.get("/execution-parameters")
        def execution_parameters() -> Response:
            concurrent = min(
                math.ceil(usable_cpus()), TRANSFORM_MB // settings.transform_payload_mb
            )
            return jsonify(
                MaxConcurrentTransforms=max(1, concurrent),
                BatchStrategy="SINGLE_RECORD",
                MaxPayloadInMB=settings.transform_payload_mb,
            )

    if settings.has_page:
        add_page(app, base_dir() / "model", partial(_loaded, loading))

    return app


def _metrics() -> Metrics:
    metrics: Metrics = current_app.extensions["metrics"]
    return metrics


def new_app(settings: Settings) -> Flask:
    """Create an application with JSON errors, a log line per request and optional metrics."""
    app = Flask("serving", static_folder=None)
    # gunicorn_conf.py replaces them by metrics that all workers share.
    app.extensions["metrics"] = Metrics()
    app.register_error_handler(HTTPException, _handle_error)
    app.before_request(_start_log)
    app.after_request(_finish_response)

    if settings.has_metrics:

        @app.get("/metrics")
        def metrics() -> Response:
            return Response(_metrics().render(), content_type=CONTENT_TYPE)

    return app


def predict_images(
    settings: Settings, pool: Pool, borrowed: AbstractContextManager[Predictor]
) -> Response:
    """Return the response with the predictions of the request's images.

    The predictor is borrowed after the body has been read, so a slow client does not hold it.
    """
    log: RequestLog = g.log
    queue_timeout = settings.wait_seconds - log.waited
    if queue_timeout <= 0:
        raise Overloaded
    default = settings.default_accept
    if request.mimetype in JSON_LINES_TYPES and default == JSON:
        default = JSON_LINES
    accept = request.headers.get("Accept")
    media_type = choose_media_type(accept, default)
    top = ranked_classes(accept, media_type)
    check_encoding(request.headers.get("Content-Encoding"))
    data = read_body(request, settings.max_body_bytes, settings.timeout_seconds)
    log.note_body()
    images = split_body(
        data,
        request.content_type,
        max_bytes=settings.max_body_bytes,
        max_images=settings.max_images,
        has_error_records=settings.has_error_records,
    )
    with borrowed as predictor:
        outcomes = pool.predict(
            predictor,
            images,
            queue_timeout_seconds=queue_timeout,
            seconds=settings.timeout_seconds,
            has_disconnected=partial(has_disconnected, connection_of(request.environ)),
        )
        class_names = predictor.class_names
    log.note_images(outcomes)
    results = [outcome.result for outcome in outcomes]
    body = encode_response(
        results,
        class_names,
        media_type,
        top=top,
        has_error_records=settings.has_error_records,
    )
    # In chunks, because the send timeout applies to each of them.
    starts = range(0, len(body), RESPONSE_CHUNK_BYTES)
    chunks = [body[start : start + RESPONSE_CHUNK_BYTES] for start in starts]
    return Response(chunks, content_type=media_type)


def _loaded(loading: "Future[Predictor]") -> Predictor:
    if not loading.done():
        raise ServiceUnavailable("the model is being loaded", retry_after=RETRY_AFTER_SECONDS)
    return loading.result()


def _handle_error(error: HTTPException) -> BaseResponse:
    """Count a rejection; keep the connection if the body arrives in time."""
    if error is request.routing_exception:
        error.description = (
            f"{request.method} {request.path[:80]} does not exist; this server has {_routes()}"
        )
    if isinstance(error, Overloaded):
        _metrics().count_refused()
    if isinstance(error, RequestTimeout) or not drain_body(request.environ, DRAIN_SECONDS):
        # The next request's first byte cannot be found on this connection.
        FORCE_CLOSE.get()()
    return error_response(error)


def _routes() -> str:
    """Return the methods and paths of the application."""
    rules = sorted(current_app.url_map.iter_rules(), key=lambda rule: rule.rule)
    return ", ".join(
        f"{method} {rule.rule}"
        for rule in rules
        for method in sorted({*(rule.methods or ())} - {"HEAD", "OPTIONS"})
    )


def _start_log() -> None:
    g.log = RequestLog(request, _metrics())


def _finish_response(response: Response) -> Response:
    """Echo the request's attributes and ID, and write the log line."""
    if attributes := request.headers.get(CUSTOM_ATTRIBUTES):
        response.headers[CUSTOM_ATTRIBUTES] = attributes
    if request.method != "POST" and (
        request.content_length or "chunked" in request.headers.get("Transfer-Encoding", "")
    ):
        # No handler reads this body, so the next request's first byte cannot be found.
        FORCE_CLOSE.get()()
    if request.endpoint not in UNLOGGED:
        response.headers[REQUEST_ID] = g.log.id
        g.log.write(response)
    return response
