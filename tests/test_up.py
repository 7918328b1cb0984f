"""local_test/up.sh, which `make up` runs: SIGTERM, and the choice of containers or processes."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.containers import REPOSITORY, compose_containers

# The services of docker-compose.yml, without their container images.
COMPOSE = """\
name: image-classifier-test-up
services:
  prepare:
    image: &image python:3.11-slim-bookworm
    command: ["true"]
  train:
    image: *image
    command: ["python", "-u", "train.py"]
    working_dir: /program
    volumes: [".:/program:ro"]
  serve:
    image: *image
"""

TRAIN = """\
import signal, time

def stop(*_):
    time.sleep(1)
    print("saved")
    raise SystemExit(0)

signal.signal(signal.SIGTERM, stop)
print("training")
while True:
    time.sleep(1)
"""


@pytest.mark.docker
def test_sigterm_ends_the_training_container_after_it_has_saved(tmp_path: Path) -> None:
    copy_scripts(tmp_path)
    (tmp_path / "docker-compose.yml").write_text(COMPOSE)
    (tmp_path / "train.py").write_text(TRAIN)
    with subprocess.Popen(
        [str(tmp_path / "local_test/up.sh")],
        cwd=tmp_path,
        env=os.environ | {"IMAGE_CLASSIFIER_LOCAL": "containers"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        output = ""
        while "training\n" not in output:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, output
            output += line
        process.send_signal(signal.SIGTERM)
        output += process.communicate()[0]

    assert process.returncode == 143, output
    assert "saved\n" in output
    assert "The server is up" not in output
    assert compose_containers(tmp_path) == []


def copy_scripts(folder: Path) -> None:
    """Copy the scripts of local_test and what they read."""
    shutil.copytree(REPOSITORY / "local_test", folder / "local_test", ignore=_without_data)
    as_owner = Path("image_classifier/platform/as_owner.sh")
    (folder / as_owner).parent.mkdir(parents=True)
    shutil.copy2(REPOSITORY / as_owner, folder / as_owner)


def _without_data(_: str, names: list[str]) -> set[str]:
    return {"test_dir"} & set(names)


def start(folder: Path, **variables: str) -> list[str]:
    """Run up.sh where it cannot set up .venv; return the lines that it prints."""
    copy_scripts(folder)
    (folder / "Makefile").write_text("setup:\n\t@echo sets up .venv; exit 1\n")
    finished = subprocess.run(
        [str(folder / "local_test/up.sh")],
        env=os.environ | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert finished.returncode
    return finished.stdout.splitlines()


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ("processes", "sets up .venv"),
        ("containers", "up.sh: no Docker engine: start it, or unset IMAGE_CLASSIFIER_LOCAL"),
        ("", "sets up .venv"),
    ],
)
def test_without_an_engine_processes_run_unless_containers_are_chosen(
    tmp_path: Path, chosen: str, expected: str
) -> None:
    engine = f"unix://{tmp_path}/none.sock"

    assert start(tmp_path, IMAGE_CLASSIFIER_LOCAL=chosen, DOCKER_HOST=engine)[0] == expected


@pytest.mark.docker
def test_processes_run_in_spite_of_an_engine_if_they_are_chosen(tmp_path: Path) -> None:
    assert start(tmp_path, IMAGE_CLASSIFIER_LOCAL="processes")[0] == "sets up .venv"
