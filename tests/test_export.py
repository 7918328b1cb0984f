"""The golden answers of an artifact."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from container.classifier.preprocessing import Preprocessing, preprocess
from container.networks.network import Classifier, ServedClassifier, small_network
from container.training.output.export import GOLDEN_IMAGES, MAX_GOLDEN_BYTES, golden_answers
from tests.opt_ml import square

SETTINGS = Preprocessing(image_size=32, crop_fraction=0.875)


@pytest.fixture
def served() -> ServedClassifier:
    torch.manual_seed(0)
    return ServedClassifier(Classifier(small_network(3)), 1.0).eval()


def write(directory: Path, count: int) -> list[Path]:
    paths = [directory / f"{number:02}.PNG" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(square("red", number))
    return paths


def write_photograph(path: Path) -> Path:
    """Write an image of more than a megabyte, like those of cameras."""
    pixels = np.random.default_rng(0).integers(0, 256, (700, 800, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    assert path.stat().st_size > MAX_GOLDEN_BYTES
    return path


@pytest.mark.parametrize(
    ("count", "expected"), [(1, [0]), (3, [0, 1, 2]), (50, [0, 7, 14, 21, 28, 35, 42, 49])]
)
def test_golden_images_are_spread_over_the_validation_images(
    tmp_path: Path, served: ServedClassifier, count: int, expected: list[int]
) -> None:
    paths = write(tmp_path, count)

    found = golden_answers(served, paths, SETTINGS)

    assert len(found) <= GOLDEN_IMAGES
    assert [answer.data for _, answer in found] == [paths[place].read_bytes() for place in expected]
    assert {suffix for suffix, _ in found} == {".png"}


def test_large_golden_image_is_stored_at_the_networks_size(
    tmp_path: Path, served: ServedClassifier
) -> None:
    path = write_photograph(tmp_path / "photograph.bmp")

    ((suffix, answer),) = golden_answers(served, [path], SETTINGS)

    assert suffix == ".png"
    assert len(answer.data) < 10_000


def test_golden_answer_belongs_to_its_image(tmp_path: Path, served: ServedClassifier) -> None:
    paths = [*write(tmp_path, 3), write_photograph(tmp_path / "photograph.bmp")]

    for _, answer in golden_answers(served, paths, SETTINGS):
        pixels = torch.from_numpy(preprocess(answer.data, SETTINGS).copy())[None]
        with torch.inference_mode():
            assert served(pixels)[0].tolist() == list(answer.probabilities)
        assert sum(answer.probabilities) == pytest.approx(1)
