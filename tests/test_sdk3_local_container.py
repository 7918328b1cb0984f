"""The training container image in the local container mode of version 3 of the SageMaker SDK.

`make sdk3` installs that version into .venv/sdk3: this environment has version 2.
"""

import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from image_classifier.platform import hands
from tests.containers import REPOSITORY, docker, remove_compose_containers, take_ownership
from tests.opt_ml import write_images
from tests.sdk_requests.record import NO_TELEMETRY
from tests.settings_files import write

PYTHON = REPOSITORY / ".venv/sdk3/bin/python"

# The folder of the checkout is the first argument: the working folder is another one.
EXAMPLE = """
import runpy, sys
sys.path.insert(0, sys.argv.pop(1))
runpy.run_module("examples.sdk3", run_name="__main__", alter_sys=True)
"""

pytestmark = [
    pytest.mark.docker,
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason="`make sdk3` was not run"),
]

SETTINGS = """
name = "sdk3"

[data]
local = "images"
channels = ["train"]

[training]
instance_count = {hosts}

[training.environment]
OMP_NUM_THREADS = "1"
CODE_VERSION = "of the test"

[hyperparameters]
network = "small"
image_size = 32
epochs = 1
precision = "float32"
quantize = "none"
debug = "off"
"""


@pytest.fixture
def folder(tmp_path: Path, train_image: str) -> Iterator[Path]:
    """A working folder; what containers write in it is removed at the end."""
    yield tmp_path
    remove_compose_containers(tmp_path)
    docker("network", "rm", "sagemaker-local", check=False)
    take_ownership(tmp_path, train_image)


@pytest.mark.parametrize("hosts", [1, 2])
def test_model_trainer_trains_in_containers(folder: Path, hosts: int) -> None:
    (folder / "images").mkdir()
    if hosts == 1:
        hands.write_images(folder / "images/train", 48, seed=1)
    else:
        write_images(folder / "images/train")
    settings = write(folder, "", SETTINGS.format(hosts=hosts))
    (folder / "sdk.yaml").write_text(NO_TELEMETRY)
    kept = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    kept["SAGEMAKER_USER_CONFIG_OVERRIDE"] = str(folder / "sdk.yaml")

    # Importing the SDK needs a region; nothing is sent.
    result = subprocess.run(
        [PYTHON, "-c", EXAMPLE, REPOSITORY, settings],
        cwd=folder,
        env={**kept, "AWS_DEFAULT_REGION": "eu-west-1", "AWS_EC2_METADATA_DISABLED": "true"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stdout
    assert f"processes={hosts}" in result.stdout
    with tarfile.open(folder / "output/compressed_artifacts/model.tar.gz") as archive:
        manifest = archive.extractfile("manifest.json")
        assert manifest
        assert json.load(manifest)["provenance"]["code_version"] == "of the test"
        assert archive.getnames().count("weights.safetensors") == 1
