"""HTTP errors that the model side raises."""

from werkzeug.exceptions import HTTPException, ServiceUnavailable

RETRY_AFTER_SECONDS = 1


class InsufficientStorage(HTTPException):
    """A model does not fit into memory; the platform unloads others and retries."""

    code = 507


class Overloaded(ServiceUnavailable):
    """A request is rejected because too many others wait."""

    def __init__(self) -> None:
        """Set the message and the `Retry-After` header."""
        super().__init__(
            "more requests than this server takes are waiting: try again",
            retry_after=RETRY_AFTER_SECONDS,
        )
