"""Random augmentation of whole batches."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from container.classifier.labeled_images import mirrored_classes
from container.training.data.augmentation import Augmentation, draw_blend
from container.training.hyperparameters import Hyperparameters

# A job's defaults.
SMALL: dict[str, Any] = {"max_rotation": 0.17, "max_zoom": 0.1, "max_shift": 0.08, "max_light": 0.2}


def changed(images: Tensor, seed: int = 0, **settings: float) -> Tensor:
    """Return augmented images."""
    augmentation = Augmentation(**settings)  # type: ignore[arg-type]
    draws = augmentation.draw(len(images), np.random.default_rng(seed))
    return augmentation(images, draws)


@pytest.fixture
def images() -> Tensor:
    """Return 64 copies of an image with four different quarters."""
    torch.manual_seed(0)
    image = torch.zeros(3, 12, 12)
    image[:, :6, :6], image[:, :6, 6:], image[:, 6:, :6], image[:, 6:, 6:] = 40, 90, 140, 200
    return image.expand(64, 3, 12, 12).contiguous()


def quarters(images: Tensor) -> list[list[float]]:
    """Return the mean of each quarter of each image, row by row."""
    return [
        [round(q.mean().item(), 2) for row in image.chunk(2, 1) for q in row.chunk(2, 2)]
        for image in images
    ]


def test_augmentation_without_changes_keeps_the_images(images: Tensor) -> None:
    assert changed(images) is images


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"horizontal_flip": True}, {(40, 90, 140, 200), (90, 40, 200, 140)}),
        ({"vertical_flip": True}, {(40, 90, 140, 200), (140, 200, 40, 90)}),
        (
            {"quarter_turns": True},
            {(40, 90, 140, 200), (90, 200, 40, 140), (200, 140, 90, 40), (140, 40, 200, 90)},
        ),
    ],
)
def test_flips_and_turns_are_exact_and_equally_frequent(
    images: Tensor, settings: dict[str, bool], expected: set[tuple[float, ...]]
) -> None:
    found = [tuple(q) for q in quarters(changed(images, **settings))]

    assert set(found) == expected
    assert all(64 / len(expected) / 2 < found.count(q) < 64 / len(expected) * 2 for q in expected)


def test_both_flips_are_independent(images: Tensor) -> None:
    found = quarters(changed(images, horizontal_flip=True, vertical_flip=True))

    assert len({tuple(q) for q in found}) == 4


def test_small_changes_do_not_swap_sides(images: Tensor) -> None:
    small = quarters(changed(images, **SMALL))

    for upper_left, upper_right, lower_left, lower_right in small:
        assert upper_left < upper_right < lower_right
        assert upper_left < lower_left < lower_right


def test_shape_type_and_range_are_kept(images: Tensor) -> None:
    result = changed(images * 1.27, **SMALL, horizontal_flip=True, cutout=0.5)

    assert (result.shape, result.dtype) == (images.shape, torch.float32)
    assert result.min() >= 0
    assert result.max() <= 255


def test_each_image_has_its_own_random_change(images: Tensor) -> None:
    one, again = (changed(images, seed=1, **SMALL) for _ in range(2))

    assert torch.equal(one, again)
    assert not torch.equal(one[0], one[1])
    assert not torch.equal(changed(images, seed=2, **SMALL), one)


def test_parts_of_a_batch_are_changed_like_the_whole(images: Tensor) -> None:
    augmentation = Augmentation(**SMALL, horizontal_flip=True, cutout=0.3)
    draws = augmentation.draw(64, np.random.default_rng(3))
    places = np.arange(64)[1::3]

    share = augmentation(images[places], draws.of(places))

    torch.testing.assert_close(share, augmentation(images, draws)[places])


def test_shifted_image_keeps_its_pixel_values() -> None:
    noise = torch.rand(1, 3, 12, 12).expand(64, 3, 12, 12) * 255

    moved = changed(noise, max_shift=0.25)

    known = noise[0].flatten(1).T
    nearest = torch.cdist(moved.permute(0, 2, 3, 1).reshape(-1, 3), known).min(dim=1).values
    assert nearest.max() < 1
    assert len({tuple(row[0, 0].tolist()) for row in moved}) > 5


def test_default_augmentation_is_small() -> None:
    assert Augmentation.of(Hyperparameters()) == Augmentation(
        max_rotation=math.radians(10), max_zoom=0.1, max_shift=0.08, max_light=0.2
    )
    assert Augmentation.of(Hyperparameters(augment=False)) == Augmentation()


def test_cutout_makes_one_square_per_image_gray() -> None:
    covered = changed(torch.zeros(64, 3, 40, 40), cutout=0.25) == 127.5

    assert torch.equal(covered[:, 0], covered[:, 2])
    for square in covered[:, 0]:
        rows, columns = square.any(dim=1).sum(), square.any(dim=0).sum()
        assert square.sum() == rows * columns
        assert 5 <= rows <= 11
        assert 5 <= columns <= 11
    assert len({tuple(square.nonzero()[0].tolist()) for square in covered[:, 0]}) > 20


def test_mixup_blends_pixels_like_targets() -> None:
    blend = draw_blend(50, 1.0, 0.0, np.random.default_rng(0))

    assert blend is not None
    mixed = blend(torch.full((50, 3, 8, 8), 200.0), torch.zeros(50, 3, 8, 8))
    torch.testing.assert_close(mixed[:, 1, 4, 4], 200 * blend.weight)
    assert len(set(blend.weight.tolist())) == 50


def test_cutmix_pastes_the_targets_fraction() -> None:
    blend = draw_blend(50, 0.0, 1.0, np.random.default_rng(0))

    assert blend is not None
    pasted = blend(torch.zeros(50, 3, 64, 64), torch.ones(50, 3, 64, 64))
    assert set(pasted.flatten().tolist()) == {0.0, 1.0}
    # Except for the pixels at the square's edge.
    torch.testing.assert_close(
        pasted.mean(dim=(1, 2, 3)), 1 - blend.weight, rtol=0, atol=2 / 64 + 1e-3
    )


def test_mixup_or_cutmix_is_chosen_at_random() -> None:
    blends = [draw_blend(4, 0.2, 1.0, np.random.default_rng(seed)) for seed in range(20)]

    assert {blend is not None and blend.box is None for blend in blends} == {True, False}
    assert draw_blend(4, 0.0, 0.0, np.random.default_rng(0)) is None


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
