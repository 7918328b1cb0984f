"""The tour of the workflow: its page, and a step that fails."""

import subprocess
import sys
from pathlib import Path

import pytest

from container.classifier.errors import UserError
from examples.tour import PAGE, Tour, main


def test_page_links_the_reports_of_all_steps(tmp_path: Path) -> None:
    (tmp_path / "odd names").mkdir()
    (tmp_path / "odd names/a&b #1.html").write_text("report")
    tour = Tour(tmp_path)

    tour.add("Train <small>", "train x", lambda: ["accuracy 99%", "<done>"], "odd names/*.html")
    page = tour.write_page("processes").read_text()

    assert '<a href="odd%20names/a%26b%20%231.html">odd names/a&amp;b #1.html</a>' in page
    assert "1. Train &lt;small&gt;" in page
    assert "accuracy 99%\n&lt;done&gt;" in page


def test_verb_that_fails_is_on_the_page(tmp_path: Path) -> None:
    tour = Tour(tmp_path)

    with pytest.raises(UserError, match="check ended with code 1"):
        tour.run("Check", "check", "missing.toml")

    page = tour.write_page("processes").read_text()
    assert "1. Check: failed" in page
    assert "missing.toml" in page


def test_folder_with_other_files_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("x")

    assert main([str(tmp_path)]) == 1
    assert "choose a new folder" in capsys.readouterr().err
    assert not (tmp_path / PAGE).exists()
    assert (tmp_path / "thesis.txt").exists()


ISOLATED = """
import socket
from examples.isolation import without_network

with without_network(in_containers=False, is_isolated=True), socket.create_server(("", 0)) as own:
    socket.create_connection(("127.0.0.1", own.getsockname()[1])).close()
    try:
        # An address for documentation, which no machine has.
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    except OSError as error:
        print(error)
"""


def test_programs_have_the_loopback_interface_alone() -> None:
    restart = f"from examples import isolation; isolation.restart(['-c', {ISOLATED!r}])"

    run = subprocess.run(
        [sys.executable, "-c", f"{restart}; print('not permitted')"],
        capture_output=True,
        text=True,
        check=True,
    )

    if "not permitted" in run.stdout:
        pytest.skip("this system permits no network namespace")
    assert "Network is unreachable" in run.stdout
