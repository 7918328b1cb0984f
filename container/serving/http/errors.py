"""JSON bodies of error responses."""

import json
from collections.abc import Mapping

from werkzeug import Response
from werkzeug.exceptions import HTTPException

from container.classifier.media_types import JSON

# SageMaker forwards at most 2,048 characters of an error; JSON may escape one as six.
MAX_MESSAGE = 300


def describe(error: HTTPException) -> Mapping[str, Mapping[str, str]]:
    """Return `{"error": {"code": "...", "message": "..."}}`."""
    message = (error.description or error.name)[:MAX_MESSAGE]
    return {"error": {"code": error.name.lower().replace(" ", "_"), "message": message}}


def error_response(error: HTTPException) -> Response:
    """Return an error as JSON, with its headers, such as Allow and Retry-After."""
    body = json.dumps(describe(error), separators=(",", ":"))
    response = Response(body, error.code, dict(error.get_headers()))
    response.content_type = JSON
    return response
