"""Servers in containers, and what killed commands leave in the Docker engine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from image_classifier.platform import deployment
from image_classifier.platform.sandbox import labels
from image_classifier.platform.sandbox.launch import Launch

PRINT_LABELS = """
from pathlib import Path
from image_classifier.platform.sandbox import labels
from image_classifier.platform.sandbox.launch import Launch

print(labels.of(Launch(base_dir=Path("ml"), folders={}))[labels.STARTER])
"""


def launch(folder: Path, port: int | None = None) -> Launch:
    published = None if port is None else ("127.0.0.1", port)
    return Launch(base_dir=folder, folders={}, published=published)


def test_program_of_a_running_process_is_not_left(tmp_path: Path) -> None:
    assert not labels.is_left(labels.of(launch(tmp_path)))
    assert not labels.is_left(labels.of_command())


def test_program_of_a_process_that_has_ended_is_left() -> None:
    command = [sys.executable, "-c", PRINT_LABELS]
    starter = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    host, _, start = starter.split()

    assert labels.is_left({labels.STARTER: starter})
    # Another process has the number of that one.
    assert labels.is_left({labels.STARTER: f"{host} {os.getpid()} {start}"})


@pytest.mark.parametrize("starter", ["elsewhere 999999999 1", "odd", "", "a b c d"])
def test_program_of_another_machine_is_not_left(starter: str) -> None:
    assert not labels.is_left({labels.STARTER: starter})
    assert not labels.is_left({})


def test_server_outlives_its_starter(tmp_path: Path) -> None:
    server = labels.of(launch(tmp_path / "deployed", 8123))
    job = labels.of(launch(tmp_path / "ml"))

    assert labels.is_server_of(server, tmp_path)
    assert not labels.is_server_of(server, tmp_path / "ml")
    assert not labels.is_server_of(job, tmp_path)
    ended = server[labels.STARTER].replace(str(os.getpid()), "999999999")
    assert not labels.is_left({**server, labels.STARTER: ended})
    assert labels.is_left({**job, labels.STARTER: ended})


@pytest.mark.parametrize("host", ["unix://{}/none.sock", "odd://x"])
def test_without_an_engine_no_server_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", host.format(tmp_path))

    assert not deployment.stop(tmp_path)
    assert deployment.port_of_server(tmp_path) is None
    deployment.save_logs(tmp_path)
