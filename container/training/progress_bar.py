"""Progress of a long computation: a live line on a terminal, else a line of the log a minute."""

import logging
import os
import time
from collections.abc import Callable
from typing import Self

from tqdm import tqdm

from container.classifier.environment import LIVE_VARIABLE, is_on

logger = logging.getLogger(__name__)

SECONDS = 60


class ProgressBar:
    """Counts the images that a computation has finished."""

    def __init__(
        self,
        name: str,
        total: int,
        *,
        done: int = 0,
        is_shown: bool = True,
        note: Callable[[], str] = str,
    ) -> None:
        """Start counting.

        Args:
            name: what is computed.
            total: the number of images.
            done: images that were finished before.
            is_shown: whether anything is printed; of several processes only one prints.
            note: returns text for the end of the line, or none.
        """
        self._name, self._total, self._done, self._is_shown = name, total, done, is_shown
        self._note = note
        self._start, self._first = time.monotonic(), done
        self._next = self._start + SECONDS
        self._bar = tqdm(
            desc=name,
            total=total,
            initial=done,
            unit=" images",
            leave=False,
            # Drawn from the first image on: lines of the log before it have their own line.
            delay=1e-9,
            disable=_is_disabled() if is_shown else True,
        )

    def __enter__(self) -> Self:
        """Show the line."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the line from the terminal."""
        self._bar.close()

    def update(self, images: int) -> None:
        """Add images that are finished."""
        self._done += images
        self._bar.update(images)
        if not self._bar.disable and (note := self._note()):
            self._bar.set_postfix_str(note, refresh=False)
        now = time.monotonic()
        if not (self._is_shown and self._bar.disable and now >= self._next):
            return
        self._next = now + SECONDS
        rate = (self._done - self._first) / max(now - self._start, 1e-9)
        left = (self._total - self._done) / rate if rate else 0
        logger.info(
            "%s: %d of %d images, %.0f images/s, %.0f s left%s",
            self._name,
            self._done,
            self._total,
            rate,
            left,
            f"; {note}" if (note := self._note()) else "",
        )


def _is_disabled() -> bool | None:
    """Return tqdm's `disable`: False if a container's stderr leads to a terminal; None: ask it."""
    return False if is_on(os.environ.get(LIVE_VARIABLE, "")) else None
