"""Threads that are started as they are needed, and do without those that cannot be started."""

import logging
from concurrent.futures import ThreadPoolExecutor

from classifier.errors import UserError

logger = logging.getLogger(__name__)


class Threads(ThreadPoolExecutor):
    """An executor that loses nothing at the container's limit of processes.

    A plain one fails where a thread cannot be started, with what it was given already in its queue.
    Threads that are all there from the beginning take turns, each with caches of its own: that was
    19 MB more under load, and slower.
    """

    def __init__(self, most: int, name: str) -> None:
        """Start the first thread.

        Raises:
            UserError: not even that can be.
        """
        super().__init__(most, thread_name_prefix=name)
        self._is_short = False
        self.submit(int).result()

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()
        except RuntimeError as error:
            message = (
                "the container may not start as many threads as the server needs: "
                "allow more processes (docker run --pids-limit, ulimit -u)"
            )
            if not self._threads:
                raise UserError(message) from error
            if not self._is_short:
                logger.warning("%s", message)
            self._is_short = True
