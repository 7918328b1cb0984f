"""The sample images: deterministic, and fit for training."""

from collections import Counter
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from image_classifier.platform import hands

Images = list[tuple[str, Image.Image]]
Floats = NDArray[np.float64]

COUNT = 60


@pytest.fixture(scope="module")
def images() -> Images:
    """Return five images of each class."""
    return list(hands.generate(COUNT, seed=3, channel="training"))


def _class_of(name: str) -> str:
    return Path(name).stem.rsplit("_", 1)[1]


def test_same_seed_gives_the_same_names_and_pixels(images: Images) -> None:
    again = list(hands.generate(COUNT, seed=3, channel="training"))

    assert [name for name, _ in again] == [name for name, _ in images]
    assert all(a.tobytes() == b.tobytes() for (_, a), (_, b) in zip(again, images, strict=True))


def test_seeds_and_channels_share_no_image(images: Images) -> None:
    others = [
        *hands.generate(COUNT, seed=4, channel="training"),
        *hands.generate(COUNT, seed=3, channel="validation"),
    ]

    assert not {name for name, _ in others} & {name for name, _ in images}
    assert not {image.tobytes() for _, image in others} & {i.tobytes() for _, i in images}


def test_images_are_gray_and_128_pixels_wide_and_high(images: Images) -> None:
    assert {(image.mode, image.size) for _, image in images} == {("L", (128, 128))}


def test_twelve_classes_are_equally_frequent(images: Images) -> None:
    counts = Counter(_class_of(name) for name, _ in images)

    assert counts == dict.fromkeys(hands.CLASS_NAMES, COUNT // 12)
    assert len(hands.CLASS_NAMES) == 12


def test_file_names_contain_the_class(tmp_path: Path) -> None:
    hands.write_images(tmp_path / "training", count=24, seed=0)

    names = sorted(path.name for path in (tmp_path / "training").iterdir())
    assert len(names) == 24
    assert {_class_of(name) for name in names} == set(hands.CLASS_NAMES)
    with Image.open(tmp_path / "training" / names[0]) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "L", (128, 128))


def test_hands_are_brighter_than_the_background(images: Images) -> None:
    pixels = np.stack([np.asarray(image) for _, image in images]).astype(np.float32)

    assert (pixels[:, 68:84, 54:74].mean(axis=(1, 2)) > pixels[:, :8].mean(axis=(1, 2)) + 40).all()


class _FixedGenerator:
    """A random generator that always returns the mean, so that hands are drawn upright."""

    def uniform(self, low: float, high: float, size: int | None = None) -> float | Floats:
        middle = (low + high) / 2
        return middle if size is None else np.full(size, middle)

    def normal(
        self, mean: float, _deviation: float, size: tuple[int, ...] | None = None
    ) -> float | Floats:
        return mean if size is None else np.full(size, float(mean))


@pytest.mark.parametrize("fingers", range(6))
def test_mirrored_left_hand_is_a_right_hand(fingers: int) -> None:
    rng = cast("np.random.Generator", _FixedGenerator())
    left, right = (hands.draw_hand(f"{fingers}{side}", rng) for side in "LR")

    assert _share_of_changed_pixels(ImageOps.mirror(left), right) < 0.001
    assert _share_of_changed_pixels(left, right) > 0.02


def _share_of_changed_pixels(one: Image.Image, other: Image.Image) -> float:
    change = np.asarray(one, dtype=np.int16) - np.asarray(other, dtype=np.int16)
    return float((np.abs(change) > 25).mean())
