"""Folders of channels under every accepted name: what one program writes, the others read."""

import json
from pathlib import Path

import pytest

from container.classifier.channel_names import CHANNEL_NAMES, SPLITS, find_channel, find_folder
from container.classifier.errors import UserError
from container.training.sagemaker.environment import TrainingEnvironment
from image_classifier.local import job_inputs
from tests.opt_ml import write_images
from tests.settings_files import read

NAME = 'name = "squares"\n'


def settings(channels: list[str]) -> str:
    return f'[data]\nlocal = "images"\nchannels = {json.dumps(channels)}\n'


@pytest.mark.parametrize("folders", [SPLITS, ("training", "val", "test"), ("train", "valid")])
@pytest.mark.parametrize("channels", [["training", "val"], ["train", "validation"]])
def test_every_name_of_a_channel_finds_every_name_of_its_folder(
    folders: tuple[str, ...], channels: list[str], tmp_path: Path
) -> None:
    for name in folders:
        write_images(tmp_path / "images" / name, per_class=1)

    found = read(tmp_path, settings(channels), NAME).local_channels()

    assert list(found) == channels
    assert [folder.name for folder in found.values()] == list(folders[:2])


@pytest.mark.parametrize(
    "names", [("training", "validation"), ("train", "val"), ("training", "valid")]
)
def test_training_reads_the_channels_that_the_local_platform_lists(
    names: tuple[str, str], tmp_path: Path
) -> None:
    for name in SPLITS:
        write_images(tmp_path / "images" / name, per_class=1)
    file = read(tmp_path, settings(list(names)), NAME)

    job_inputs.prepare(tmp_path / "ml", file.local_channels(), {})

    channels = TrainingEnvironment(base_dir=tmp_path / "ml").channels()
    assert channels.training.resolve() == tmp_path / "images" / "train"
    assert channels.validation
    assert channels.validation.resolve() == tmp_path / "images" / "validation"


def test_missing_folder_is_reported_with_those_that_exist(tmp_path: Path) -> None:
    write_images(tmp_path / "images" / "train", per_class=1)
    file = read(tmp_path, settings(["training", "test"]), NAME)

    with pytest.raises(
        UserError, match=r"the folder .*/test of channel test does not exist, found train there"
    ):
        file.local_channels()


def test_exact_name_comes_first() -> None:
    assert find_folder("val", {"validation", "val"}) == "val"
    assert find_folder("val", {"validation", "test"}) == "validation"
    assert find_folder("weights", {"model"}) == "model"
    assert find_folder("unknown", {"train"}) is None
    assert all(find_channel(channel, SPLITS) for channel in ("training", "validation", "test"))
    assert set(CHANNEL_NAMES) == {"training", "validation", "test", "weights"}
