"""How long a worker has been silent, in time that the machine ran.

gunicorn's master ends a worker that has shown no sign of life for the timeout. A laptop that slept,
a paused container or a serverless endpoint between two requests shows none either: at its return
the clock has gone on, and the master may look before the worker has had its turn. Here the silence
is added up from one look of the master to its next, and one of them counts no more than looking
ever takes.
"""

import time

from gunicorn.config import Config
from gunicorn.workers.workertmp import WorkerTmp

# The master looks every second.
LOOK_SECONDS = 2.0


class Heartbeat(WorkerTmp):  # type: ignore[misc]  # gunicorn has no types
    """A worker's sign of life, and the master's sight of it."""

    def __init__(self, config: Config) -> None:
        """Begin with no silence."""
        super().__init__(config)
        self._beat = self._looked = time.monotonic()
        self._silence = 0.0

    def last_update(self) -> float:
        """Return when the worker last showed that it lives, but for the time the machine slept."""
        beat, now = super().last_update(), time.monotonic()
        # Until its first sign of life a worker is starting, and the file's time is the clock's.
        if beat != self._beat or beat > now:
            self._beat, self._silence = beat, 0.0
        else:
            self._silence += min(now - self._looked, LOOK_SECONDS)
        self._looked = now
        return now - self._silence
