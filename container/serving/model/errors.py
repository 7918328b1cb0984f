"""HTTP errors that the model side raises."""

from werkzeug.exceptions import HTTPException, ServiceUnavailable

from container.serving.settings import OVERLOADED_MESSAGE, RETRY_AFTER_SECONDS


class InsufficientStorage(HTTPException):
    """A model does not fit into memory; the platform unloads others and retries."""

    code = 507


class Overloaded(ServiceUnavailable):
    """A request is rejected because too many others wait."""

    def __init__(self) -> None:
        """Set the message and the `Retry-After` header."""
        super().__init__(OVERLOADED_MESSAGE, retry_after=RETRY_AFTER_SECONDS)
