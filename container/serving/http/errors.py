"""What is said of an error, to a person and to a program."""

from collections.abc import Mapping

from werkzeug.exceptions import HTTPException

from container.serving.server.refusal import problem

# SageMaker hands at most 2,048 characters of an error on, and JSON may take six for one.
MAX_MESSAGE = 300


def describe(error: HTTPException) -> Mapping[str, Mapping[str, str]]:
    """Return `{"error": {"code": "...", "message": "..."}}`."""
    return problem(error.name, (error.description or error.name)[:MAX_MESSAGE])
