"""The HTTP side of serving: routes, errors as JSON, a log line per request."""

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from flask import Flask, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException, RequestTimeout, ServiceUnavailable

from classifier.preprocessing import MAX_PIXELS
from serving.admission import Admission
from serving.body import discard_body, hang_up, read_body
from serving.decoding import Decoder, choose_decoder
from serving.encoding import Probabilities, choose_media_type, encode_response
from serving.limits import usable_memory, usable_processors
from serving.predictor import Predictor
from serving.settings import MIB, TRANSFORM_MB, Settings

logger = logging.getLogger(__name__)

CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"

# The greediest decoder, WebP's; and the server with ResNet-18 by itself.
DECODER_BYTES_PER_PIXEL = 16
SERVER_BYTES = 300 * MIB

# SageMaker hands at most 2,048 characters of an error on, and JSON may take six for one.
MAX_MESSAGE = 300


def create_app(loading: "Future[Predictor]", settings: Settings) -> Flask:
    """Make the application, which answers /ping with 503 until `loading` is done."""
    app = Flask("serving", static_folder=None)
    app.extensions["loading"] = loading
    app.register_error_handler(HTTPException, _describe)
    app.before_request(_start_clock)
    app.after_request(_finish)
    admission = Admission(settings.max_requests)
    # First come, first served, which a lock is not.
    pool = ThreadPoolExecutor(_threads(settings.workers), thread_name_prefix="predict")

    @app.get("/ping")
    def ping() -> Response:
        _loaded(loading)
        return Response()

    @app.post("/invocations")
    def invocations() -> Response:
        predictor = _loaded(loading)
        with admission.place():
            media_type = choose_media_type(request.headers.get("Accept"), settings.default_accept)
            decode = choose_decoder(request.content_type)
            data = read_body(request, settings.max_body_bytes, settings.timeout_seconds)
            probabilities = pool.submit(_predict, predictor, decode, data).result()
        g.pictures = len(probabilities)
        body = encode_response(probabilities, predictor.class_names, media_type)
        return Response(body, content_type=media_type)

    if settings.has_execution_parameters:

        @app.get("/execution-parameters")
        def execution_parameters() -> Response:
            concurrent = min(usable_processors(), TRANSFORM_MB // settings.transform_payload_mb)
            return jsonify(
                MaxConcurrentTransforms=max(1, concurrent),
                BatchStrategy="SINGLE_RECORD",
                MaxPayloadInMB=settings.transform_payload_mb,
            )

    return app


def _loaded(loading: "Future[Predictor]") -> Predictor:
    if not loading.done():
        message = "the model is being loaded"
        raise ServiceUnavailable(message, retry_after=1)
    return loading.result()


def _threads(workers: int) -> int:
    """Return how many pictures a worker may have in work; those that wait are still compressed."""
    largest_picture = MAX_PIXELS * DECODER_BYTES_PER_PIXEL
    by_memory = (usable_memory() // workers - SERVER_BYTES) // largest_picture
    # One more than processors, so that pictures are decoded while others are predicted.
    return max(1, min(usable_processors() // workers + 1, by_memory))


def _predict(predictor: Predictor, decode: Decoder, data: bytes) -> Probabilities:
    return predictor.predict(decode(data, predictor.preprocessing))


def _describe(error: HTTPException) -> Response:
    """Turn an error into JSON, keeping its headers, such as Allow and Retry-After."""
    response = Response(headers=dict(error.get_headers(request.environ)), status=error.code)
    if isinstance(error, RequestTimeout) or not discard_body(request):
        response.call_on_close(partial(hang_up, request.environ))
    code = error.name.lower().replace(" ", "_")
    message = (error.description or error.name)[:MAX_MESSAGE]
    response.data = jsonify(error={"code": code, "message": message}).data
    response.content_type = "application/json"
    return response


def _start_clock() -> None:
    g.start = time.perf_counter()


def _finish(response: Response) -> Response:
    """Return the caller's custom attributes and write the log line."""
    if attributes := request.headers.get(CUSTOM_ATTRIBUTES):
        response.headers[CUSTOM_ATTRIBUTES] = attributes
    # SageMaker asks /ping every few seconds.
    if request.endpoint != "ping":
        logger.info(
            "method=%s request=%s status=%d milliseconds=%.1f pictures=%d",
            request.method,
            request.endpoint or "unknown",
            response.status_code,
            1000 * (time.perf_counter() - g.start),
            g.get("pictures", 0),
        )
    return response
