"""What is said of an error, to a person and to a program."""

from collections.abc import Mapping

from werkzeug.exceptions import HTTPException, ServiceUnavailable

from container.serving.server.refusal import MESSAGE, RETRY_AFTER_SECONDS, problem


class InsufficientStorage(HTTPException):
    """A model does not fit; the platform unloads others and tries again."""

    code = 507


# SageMaker hands at most 2,048 characters of an error on, and JSON may take six for one.
MAX_MESSAGE = 300


def describe(error: HTTPException) -> Mapping[str, Mapping[str, str]]:
    """Return `{"error": {"code": "...", "message": "..."}}`."""
    return problem(error.name, (error.description or error.name)[:MAX_MESSAGE])


def overloaded() -> ServiceUnavailable:
    """Return the refusal of what would wait too long."""
    return ServiceUnavailable(MESSAGE, retry_after=RETRY_AFTER_SECONDS)
