"""JSON bodies of error responses."""

from collections.abc import Mapping

from werkzeug.exceptions import HTTPException

# SageMaker forwards at most 2,048 characters of an error; JSON may escape one as six.
MAX_MESSAGE = 300


def describe(error: HTTPException) -> Mapping[str, Mapping[str, str]]:
    """Return `{"error": {"code": "...", "message": "..."}}`."""
    message = (error.description or error.name)[:MAX_MESSAGE]
    return {"error": {"code": error.name.lower().replace(" ", "_"), "message": message}}
