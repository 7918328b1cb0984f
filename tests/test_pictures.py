"""Pictures decoded once, in the order of their files."""

from pathlib import Path

import numpy as np
import pytest

from classifier.errors import UserError
from classifier.preprocessing import Preprocessing, preprocess
from tests.opt_ml import square
from training.channel import LabelledFile
from training.pictures import Pictures, decode
from training.stop import Stopped, StopRequest

SETTINGS = Preprocessing(image_size=16)
CLASS_NAMES = ("blue", "green", "red")


@pytest.fixture
def files(tmp_path: Path) -> list[LabelledFile]:
    """More than a chunk, the classes in turn."""
    files = []
    for number in range(300):
        class_name = CLASS_NAMES[number % 3]
        path = tmp_path / f"{number:03}.png"
        path.write_bytes(square(class_name, number))
        files.append(LabelledFile(path, class_name))
    return files


def decoded(files: list[LabelledFile]) -> Pictures:
    return decode(files, CLASS_NAMES, SETTINGS, StopRequest())


def test_pixels_labels_and_paths_are_in_the_order_of_the_files(files: list[LabelledFile]) -> None:
    pictures = decoded(files)

    assert len(pictures) == 300
    assert pictures.pixels.shape == (300, 16, 16, 3)
    assert pictures.labels.tolist() == [number % 3 for number in range(300)]
    assert pictures.paths == tuple(file.path for file in files)
    for place in (0, 255, 256, 299):
        expected = preprocess(files[place].path.read_bytes(), SETTINGS)
        assert np.array_equal(pictures.pixels[place], expected)


def test_broken_pictures_leave_no_gap(files: list[LabelledFile]) -> None:
    for place in (0, 100, 299):
        files[place].path.write_bytes(b"no picture")

    pictures = decoded(files)

    assert len(pictures.pixels) == len(pictures) == len(pictures.paths) == 297
    assert pictures.labels[:3].tolist() == [1, 2, 0]
    assert np.array_equal(pictures.pixels[0], preprocess(files[1].path.read_bytes(), SETTINGS))


def test_five_percent_of_broken_pictures_are_let_through_and_more_refused(
    files: list[LabelledFile],
) -> None:
    for place in range(15):
        files[place].path.write_bytes(b"no picture")
    assert len(decoded(files)) == 285

    files[15].path.write_bytes(b"no picture")
    with pytest.raises(
        UserError, match=r"^16 of 300 pictures cannot be read, more than 5%: .*; \.\.\.$"
    ):
        decoded(files)


def test_equal_data_have_equal_checksums_and_others_do_not(files: list[LabelledFile]) -> None:
    checksum = decoded(files).sha256

    assert decoded(files).sha256 == checksum
    assert decoded(files[::-1]).sha256 != checksum
    relabelled = [LabelledFile(files[0].path, "red"), *files[1:]]
    assert decoded(relabelled).sha256 != checksum
    files[7].path.write_bytes(square("red", 1000))
    assert decoded(files).sha256 != checksum


def test_a_stop_ends_the_decoding(files: list[LabelledFile]) -> None:
    stop = StopRequest()
    stop.requested = True

    with pytest.raises(Stopped):
        decode(files, CLASS_NAMES, SETTINGS, stop)
