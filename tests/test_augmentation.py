"""Random changes of whole batches."""

import pytest
import torch
from torch import Tensor

from training.augmentation import Augmentation, mirrored_classes

ALL_OFF = Augmentation(geometry_and_light=False, horizontal_flip=False, vertical_flip=False)


@pytest.fixture
def images() -> Tensor:
    """64 times one picture whose four quarters differ."""
    torch.manual_seed(0)
    image = torch.zeros(3, 12, 12)
    image[:, :6, :6], image[:, :6, 6:], image[:, 6:, :6], image[:, 6:, 6:] = 40, 90, 140, 200
    return image.expand(64, 3, 12, 12).contiguous()


def quarters(images: Tensor) -> list[list[float]]:
    """Return the means of each picture's quarters, row by row."""
    return [
        [round(q.mean().item(), 2) for row in image.chunk(2, 1) for q in row.chunk(2, 2)]
        for image in images
    ]


def test_without_any_change_the_pictures_stay_the_same(images: Tensor) -> None:
    assert ALL_OFF(images) is images


def test_a_horizontal_flip_mirrors_about_half_of_the_pictures_and_does_nothing_else(
    images: Tensor,
) -> None:
    flips = Augmentation(geometry_and_light=False, horizontal_flip=True, vertical_flip=False)

    found = quarters(flips(images))

    assert all(q in ([40, 90, 140, 200], [90, 40, 200, 140]) for q in found)
    assert 16 < found.count([90, 40, 200, 140]) < 48


def test_a_vertical_flip_turns_about_half_of_the_pictures_upside_down(images: Tensor) -> None:
    flips = Augmentation(geometry_and_light=False, horizontal_flip=False, vertical_flip=True)

    found = quarters(flips(images))

    assert all(q in ([40, 90, 140, 200], [140, 200, 40, 90]) for q in found)
    assert 16 < found.count([140, 200, 40, 90]) < 48


def test_both_flips_are_drawn_apart(images: Tensor) -> None:
    flips = Augmentation(geometry_and_light=False, horizontal_flip=True, vertical_flip=True)

    assert len({tuple(q) for q in quarters(flips(images))}) == 4


def test_small_changes_keep_left_left_and_above_above(images: Tensor) -> None:
    changes = Augmentation(geometry_and_light=True, horizontal_flip=False, vertical_flip=False)

    for upper_left, upper_right, lower_left, lower_right in quarters(changes(images)):
        assert upper_left < upper_right < lower_right
        assert upper_left < lower_left < lower_right


def test_shape_type_and_range_are_kept(images: Tensor) -> None:
    changes = Augmentation(geometry_and_light=True, horizontal_flip=True, vertical_flip=True)

    changed = changes(images * 1.27)

    assert (changed.shape, changed.dtype) == (images.shape, torch.float32)
    assert changed.min() >= 0
    assert changed.max() <= 255


def test_every_picture_is_changed_on_its_own_and_by_the_seed_alone(images: Tensor) -> None:
    changes = Augmentation(geometry_and_light=True, horizontal_flip=False, vertical_flip=False)

    torch.manual_seed(1)
    one = changes(images)
    torch.manual_seed(1)
    again = changes(images)

    assert torch.equal(one, again)
    assert not torch.equal(one[0], one[1])
    assert not torch.equal(changes(images), one)


@pytest.mark.parametrize(
    ("class_names", "pairs"),
    [
        (["0L", "0R", "3L", "3R"], [("0L", "0R"), ("3L", "3R")]),
        (["left", "right"], [("left", "right")]),
        (["Left_hand", "right_hand", "fist"], [("Left_hand", "right_hand")]),
        (["turn-left", "turn-right"], [("turn-left", "turn-right")]),
        (["L", "R"], [("L", "R")]),
        (["1", "2", "3"], []),
        (["ball", "bar"], []),
        (["left", "other"], []),
        (["coal", "coar"], []),
        (["cat", "dog"], []),
    ],
)
def test_classes_that_a_flip_would_swap_are_found(
    class_names: list[str], pairs: list[tuple[str, str]]
) -> None:
    assert mirrored_classes(class_names) == pairs
