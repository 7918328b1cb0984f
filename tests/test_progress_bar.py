"""Progress within an epoch: on a terminal, and in the log without one."""

import logging
import os
import pty
import re
import select
import subprocess
import sys
import termios

import pytest

from container.classifier.environment import LIVE_VARIABLE
from container.classifier.metric_lines import METRIC_DEFINITIONS
from container.training import progress_bar
from container.training.progress_bar import ProgressBar
from tests.documents import ROOT

CODE = """
import logging
import time
from container.training import progress_bar
logging.basicConfig(level=logging.INFO, format="%(message)s")
progress_bar.SECONDS = 0
with progress_bar.ProgressBar("epoch 0", 100):
    pass
with progress_bar.ProgressBar("epoch 1", 100) as bar:
    time.sleep(0.2)
    bar.update(60)
"""


def test_without_a_terminal_the_log_has_lines_that_are_no_metrics(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_bar, "SECONDS", 0)
    with caplog.at_level(logging.INFO), ProgressBar("epoch 3", 100, done=20) as bar:
        bar.update(30)

    (line,) = caplog.messages
    assert re.fullmatch(r"epoch 3: 50 of 100 images, \d+ images/s, \d+ s left", line)
    assert not [d for d in METRIC_DEFINITIONS if re.search(d["Regex"], line)]


def test_a_short_computation_and_other_ranks_log_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with caplog.at_level(logging.INFO), ProgressBar("epoch 1", 100) as bar:
        bar.update(100)
    monkeypatch.setattr(progress_bar, "SECONDS", 0)
    with caplog.at_level(logging.INFO), ProgressBar("epoch 1", 100, is_shown=False) as bar:
        bar.update(100)

    assert caplog.messages == []


def test_on_a_terminal_a_line_has_images_rate_and_remaining_time() -> None:
    ours, theirs = pty.openpty()
    # tqdm prints nothing on a terminal without rows.
    termios.tcsetwinsize(theirs, (24, 80))
    with os.fdopen(ours, "rb", buffering=0) as terminal, os.fdopen(theirs, "wb") as stderr:
        subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, stderr=stderr, check=True)
        written = b""
        # The terminal passes it on in parts, and loses it when the last writer closes.
        while b"images/s" not in written:
            assert select.select([terminal], [], [], 10)[0], written
            written += terminal.read(10_000)
    shown = written.decode()

    assert "epoch 1" in shown
    assert "epoch 0" not in shown
    assert "60/100 [" in shown
    assert "images/s" in shown
    assert "of 100 images" not in shown


def test_stderr_of_a_container_that_leads_to_a_terminal_has_the_live_line() -> None:
    shown = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=ROOT,
        env=os.environ | {LIVE_VARIABLE: "true"},
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    ).stderr

    assert "60/100 [" in shown
    assert "of 100 images" not in shown
