"""Progress of a local tuning job: a live line on a terminal, else a line a minute."""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Self

from optuna.trial import FrozenTrial
from tqdm import tqdm

# Between updates of the live line, and between lines without a terminal.
LIVE_SECONDS, SECONDS = 1.0, 60.0

LIVE_LINE = "{l_bar}{bar}| {elapsed}<{remaining}{postfix}"


class TuningProgress(AbstractContextManager["TuningProgress"]):
    """Shows the finished trials, the best one and the remaining time during a `with` block.

    The remaining time counts the finished epochs of running trials, as if every trial took as
    long as the mean of the earlier ones.
    """

    def __init__(
        self, total: int, left: int, show: Callable[[str], None], *, is_quiet: bool = False
    ) -> None:
        """Start the clock.

        Args:
            total: the number of trials, those of earlier searches included.
            left: the number of trials of this search.
            show: prints a line.
            is_quiet: print nothing but what is given to `show`.
        """
        self._total, self._left, self._show, self._is_quiet = total, left, show, is_quiet
        self._finished, self._running, self._best = 0, dict[int, float](), ""
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._start = time.monotonic()
        self._bar = tqdm(
            desc="tune",
            total=total,
            initial=total - left,
            # The mean of all trials, not of the last ones.
            smoothing=0,
            bar_format=LIVE_LINE,
            dynamic_ncols=True,
            leave=False,
            # None: only on a terminal.
            disable=True if is_quiet else None,
        )
        self._thread = threading.Thread(target=self._repeat, daemon=True)

    def __enter__(self) -> Self:
        """Show the progress until the end of the block."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the live line."""
        self._ended.set()
        self._thread.join()
        self._bar.close()

    def show(self, text: str) -> None:
        """Print a line above the live line."""
        with tqdm.external_write_mode():
            self._show(text)

    def update(self, number: int, share: float) -> None:
        """Set the finished share of a running trial, from 0 to 1."""
        with self._lock:
            self._running[number] = min(share, 1.0)

    def finish(self, number: int, best: FrozenTrial | None) -> None:
        """Count a trial that has ended; `best` is the best of all so far."""
        with self._lock:
            self._running.pop(number, None)
            self._finished += 1
            if best is not None:
                self._best = f", best {best.value:.5g} (trial {best.number})"

    def line(self) -> str:
        """Return the progress as a sentence without a terminal."""
        with self._lock:
            done = self._finished + sum(self._running.values())
            text = f"{self._total - self._left + self._finished} of {self._total} trials"
            text += f"{self._best}, {len(self._running)} running"
        elapsed = time.monotonic() - self._start
        left = (self._left - done) * elapsed / done if done else None
        return text + ("" if left is None else f", about {left:.0f} s left")

    def _repeat(self) -> None:
        while not self._ended.wait(SECONDS if self._bar.disable else LIVE_SECONDS):
            if not self._bar.disable:
                self._refresh()
            elif not self._is_quiet:
                # The next line of a trial ends the search.
                with suppress(BrokenPipeError):
                    self._show(self.line())

    def _refresh(self) -> None:
        with self._lock:
            first = self._total - self._left + self._finished
            self._bar.n = first + sum(self._running.values())
            text = f"{first} of {self._total} trials{self._best}"
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.refresh()
