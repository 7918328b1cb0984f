"""Requests for servers whose input format is unknown, and what their responses mean."""

import io
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

from PIL import Image

from image_classifier.platform.doctor.examination import Examination
from image_classifier.platform.sandbox.http_call import REFUSED, Connection, Response
from image_classifier.platform.sandbox.launch import Running

JSON, CSV = "application/json", "text/csv"

# SageMaker passes so much of an error to the caller.
MAX_ERROR_BYTES = 2048

# A program that is being killed may still be seen as running for so long: after it closed a
# connection, and after it closed its port, when it is certain to end.
_END_SECONDS, _CLOSED_SECONDS = 0.3, 3

_TRACEBACK = re.compile(rb"Traceback \(most recent call last\)|\n\s+at [\w.$]+\(.*\)")
_TOOLKIT_TRACE = b"/sagemaker_inference/transformer.py"
_ERROR_KEYS = ("error", "errors", "exception", "traceback", "errorMessage", "error_message")
_BINARY_ERRORS = ("success", "ok")
_STATUS_KEYS = ("status", "statusCode", "status_code", "code")

# What errors have in place of a prediction.
_MESSAGE_KEYS = {"message", "detail", "msg", "reason", "type", "timestamp", "path", *_STATUS_KEYS}
_FAULT = re.compile(
    r"error|exception|invalid|fail|cannot|could not|unable|unsupported|bad request", re.IGNORECASE
)
_FAULT_AT_START = re.compile(rf"^\W*([\w.]*(Error|Exception)\b|(?i:{_FAULT.pattern}))")
_TAG = re.compile(r"<(style|script).*?</\1>|<[^>]*>", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Payload:
    """The body of a request, and its Content-Type."""

    body: bytes
    content_type: str
    accept: str = "*/*"
    """Empty: the request has no such header."""


def candidates(examination: Examination) -> Iterator[Payload]:
    """Yield the given request, or else requests in the usual formats."""
    options = examination.options
    if options.request is not None:
        yield Payload(body=options.request, content_type=options.content_type)
        return
    yield Payload(body=png(), content_type="image/png")
    yield Payload(body=b'{"instances": [[1.0, 2.0, 3.0, 4.0]]}', content_type=JSON)
    yield Payload(body=b"1.0,2.0,3.0,4.0\n", content_type=CSV)
    yield Payload(body=b"1.0,2.0,3.0,4.0", content_type="text/plain")


def invalid() -> Iterator[Payload]:
    """Yield requests that no server can understand."""
    yield Payload(body=b"{[not valid", content_type=JSON)
    yield Payload(body=b"doctor", content_type="application/x-doctor")


def invoke(
    examination: Examination, running: Running, payload: Payload, *, is_chunked: bool = False
) -> Response:
    """Send a request to /invocations on a new connection."""
    with closing(Connection(running.address, examination.limits.invocation)) as connection:
        response = send(connection, payload, is_chunked=is_chunked)
    if response.status is None:
        has_ended(running, response)
    return response


def has_ended(running: Running, unanswered: Response) -> bool:
    """Return whether a server has ended that did not respond; wait for its end for a while."""
    is_closed = unanswered.problem == REFUSED
    return running.wait(_CLOSED_SECONDS if is_closed else _END_SECONDS) is not None


def send(connection: Connection, payload: Payload, *, is_chunked: bool = False) -> Response:
    """Send a request to /invocations on a connection."""
    headers = {"Content-Type": payload.content_type}
    if payload.accept:
        headers["Accept"] = payload.accept
    return connection.send(
        "POST", "/invocations", body=payload.body, headers=headers, is_chunked=is_chunked
    )


def is_error_body(response: Response) -> bool:
    """Return whether a body describes an error, with any status."""
    if _TRACEBACK.search(response.body):
        return True
    document = parse(response.body)
    if isinstance(document, dict):
        return _is_error_document(document)
    text = str(document) if isinstance(document, str) else response.body.decode(errors="replace")
    if text.lstrip().startswith("<"):
        return _FAULT.search(_TAG.sub(" ", text)) is not None
    return _FAULT_AT_START.match(text) is not None


def _is_error_document(document: Mapping[str, object]) -> bool:
    statuses = [document.get(key) for key in _STATUS_KEYS]
    return (
        any(document.get(key) for key in _ERROR_KEYS)
        or any(document.get(key) is False for key in _BINARY_ERRORS)
        or any(isinstance(each, int) and 400 <= each < 600 for each in statuses)  # noqa: PLR2004
        or any(str(each).lower() in {"error", "failed", "failure"} for each in statuses)
        or (document.keys() <= _MESSAGE_KEYS and _FAULT.search(str(document)) is not None)
    )


def fault_of_error(response: Response) -> str | None:
    """Return what is wrong with the body of an error; None: nothing."""
    if response.is_client_error and _TOOLKIT_TRACE in response.body:
        # The toolkit adds it to the message of the handler, who cannot prevent it.
        return None
    if _TRACEBACK.search(response.body):
        return "contains a stack trace, which the caller sees"
    if response.body and parse(response.body) is None:
        return "is not JSON"
    if len(response.body) > MAX_ERROR_BYTES:
        return f"has {len(response.body)} bytes, of which the caller sees {MAX_ERROR_BYTES}"
    return None


def fault_of_format(response: Response, accept: str, request: Payload) -> str | None:
    """Return what is wrong with the format of a prediction; None: nothing."""
    if response.body and not response.media_type:
        return "the response has no Content-Type"
    if encoding := response.headers.get("content-encoding"):
        return f"Content-Encoding is {encoding}, which the request does not accept"
    is_json = response.media_type == JSON or response.media_type.endswith("+json")
    if is_json and not response.is_cut and parse(response.body) is None:
        return f"Content-Type is {response.media_type}, but the body is not JSON"
    if response.media_type == CSV and isinstance(parse(response.body), dict):
        return f"Content-Type is {CSV}, but the body is JSON"
    # Servers with CSV alone, such as AWS's sample, have no other format.
    is_only_format = response.media_type == request.content_type == CSV
    if accept == JSON and not is_json and not is_only_format:
        return f"Accept: {JSON} was answered with {response.media_type}"
    return None


def parse(body: bytes) -> object:
    """Return a JSON document; None if it is not JSON, such as NaN."""
    try:
        return json.loads(body, parse_constant=_reject_constant)
    except (ValueError, RecursionError):
        return None


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def png(color: tuple[int, int, int] = (200, 80, 40), size: int = 64) -> bytes:
    """Return an image, one half in a color, and one half in another."""
    image = Image.new("RGB", (size, size), (40, 80, 200))
    image.paste(color, (0, 0, size // 2, size))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
