"""Progress of `tune --local`: on a terminal, and lines without one."""

import os
import pty
import re
import subprocess
import sys
import termios
import threading
import time

import pytest
from optuna.trial import FrozenTrial, create_trial

from image_classifier.local import tuning_progress
from image_classifier.local.tuning_progress import TuningProgress
from tests.documents import ROOT

CODE = """
import sys, time
from optuna.trial import create_trial
from image_classifier.local import tuning_progress
tuning_progress.LIVE_SECONDS = 0.02
with tuning_progress.TuningProgress(8, 4, print, is_quiet="--quiet" in sys.argv) as progress:
    progress.update(4, 0.5)
    progress.finish(5, create_trial(value=0.25))
    progress.show("trial 5: complete 0.25")
    time.sleep(0.5)
print("model.tar.gz")
"""


def best(number: int, value: float) -> FrozenTrial:
    trial = create_trial(value=value)
    trial.number = number
    return trial


def on_a_terminal(*arguments: str) -> tuple[str, str]:
    """Run CODE; return its standard output, and what the terminal of its errors shows."""
    ours, theirs = pty.openpty()
    # tqdm prints nothing on a terminal without rows.
    termios.tcsetwinsize(theirs, (24, 100))
    shown = bytearray()

    def read() -> None:
        # Linux raises OSError when the last writer has closed the terminal.
        try:
            while piece := os.read(ours, 10_000):
                shown.extend(piece)
        except OSError:
            pass

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(theirs, "wb") as stderr:
        output = subprocess.check_output(
            [sys.executable, "-c", CODE, *arguments], cwd=ROOT, stderr=stderr, text=True
        )
    reader.join()
    os.close(ours)
    return output, shown.decode()


def test_terminal_shows_trials_the_best_one_and_remaining_time() -> None:
    output, shown = on_a_terminal()

    assert output.splitlines() == ["trial 5: complete 0.25", "model.tar.gz"]
    # 4 earlier trials, one of this search, and half of another.
    found = re.search(r"tune:  69%\|.+\| 00:00<00:0\d, 5 of 8 trials, best 0\.25", shown)
    assert found, shown
    # The line is removed at the end.
    assert re.fullmatch(r"\s*", shown.rpartition("\r")[2])


def test_quiet_search_shows_nothing_on_a_terminal() -> None:
    assert on_a_terminal("--quiet")[1] == ""


def test_without_a_terminal_a_line_is_printed_at_intervals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tuning_progress, "SECONDS", 0.02)
    lines: list[str] = []
    with TuningProgress(3, 3, lines.append) as progress:
        assert progress.line() == "0 of 3 trials, 0 running"
        progress.update(0, 0)
        progress.update(1, 0.5)
        progress.finish(0, best(0, 0.91234567))
        while not lines:
            time.sleep(0.01)

    pattern = r"1 of 3 trials, best 0\.91235 \(trial 0\), 1 running, about \d+ s left"
    assert re.fullmatch(pattern, lines[-1])


def test_closed_pipe_is_left_to_the_lines_of_trials(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tuning_progress, "SECONDS", 0.01)
    tried = threading.Event()

    def show(_text: str) -> None:
        tried.set()
        raise BrokenPipeError

    with TuningProgress(1, 1, show):
        assert tried.wait(10)

    assert capfd.readouterr().err == ""


def test_short_search_prints_only_its_trials(capfd: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    with TuningProgress(1, 1, lines.append) as progress:
        progress.finish(0, None)
        progress.show("trial 0: fail")

    assert lines == ["trial 0: fail"]
    assert capfd.readouterr() == ("", "")


def test_search_without_trials_to_go_has_no_remaining_time() -> None:
    with TuningProgress(2, 0, print) as progress:
        assert progress.line() == "2 of 2 trials, 0 running"
