"""A local training on several hosts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from container.classifier.errors import UserError
from container.classifier.locks import locked
from image_classifier.local import jobs
from image_classifier.platform.sandbox.launch import Limits
from image_classifier.settings.settings_file import SettingsFile
from tests.containers import docker
from tests.opt_ml import HYPERPARAMETERS, write_images
from tests.settings_files import read

SETTINGS = """
[data]
local = "images"
channels = ["training"]

[training]
instance_count = 2
environment = { OMP_NUM_THREADS = "1" }

[hyperparameters]
""" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in HYPERPARAMETERS.items())


@pytest.fixture
def file(tmp_path: Path) -> SettingsFile:
    write_images(tmp_path / "images/training")
    return read(tmp_path, SETTINGS, 'name = "two-hosts"\n')


@pytest.mark.docker
@pytest.mark.usefixtures("train_image", "file")
def test_two_containers_train_one_network(tmp_path: Path) -> None:
    command = "image_classifier train settings.toml --local --containers"

    result = subprocess.run(
        [sys.executable, "-m", *command.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stderr
    folder = tmp_path / ".launcher/two-hosts"
    assert (folder / "model.tar.gz").is_file()
    for tree in (folder / jobs.FOLDER, folder / "hosts/algo-2"):
        assert " processes=2 " in (tree / "training.log").read_text()
    # The first host writes the model.
    assert not any((folder / "hosts/algo-2/model").iterdir())
    label = f"label=image-classifier.folder={folder / jobs.FOLDER}"
    assert not docker("network", "ls", "--quiet", "--filter", label).text


def test_processes_train_on_one_host_and_report_that(tmp_path: Path, file: SettingsFile) -> None:
    shown: list[str] = []
    (tmp_path / jobs.FOLDER).mkdir()

    with locked(tmp_path / jobs.FOLDER), pytest.raises(UserError):
        jobs.train(file, tmp_path, from_tuning=False, show=shown.append)

    assert shown == ["training on one host: 2 hosts need --containers"]


def test_interruption_of_several_hosts_is_rejected(tmp_path: Path, file: SettingsFile) -> None:
    with pytest.raises(UserError, match=r"needs training.instance_count = 1"):
        jobs.train(file, tmp_path, from_tuning=False, container=Limits(), interrupt_after=1)
