"""Who may come in: refuses at once what could only wait."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from werkzeug.exceptions import ServiceUnavailable

RETRY_AFTER_SECONDS = 1


class Admission:
    """Places for requests at work and waiting."""

    def __init__(self, places: int) -> None:
        """Open with all places free."""
        self._places = threading.BoundedSemaphore(places)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place.

        Raises:
            ServiceUnavailable: none is free.
        """
        if not self._places.acquire(blocking=False):
            message = "as many requests as this server takes are waiting: try again"
            raise ServiceUnavailable(message, retry_after=RETRY_AFTER_SECONDS)
        try:
            yield
        finally:
            self._places.release()
