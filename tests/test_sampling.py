"""The images of each batch."""

from itertools import chain

import numpy as np
import pytest

from container.training.data.sampling import batches, class_weights

# Three classes of 60, 30 and 5 images.
LABELS = np.repeat([0, 1, 2], [60, 30, 5])


def epoch(*, balanced: bool, seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [batch.tolist() for batch in batches(LABELS, 16, random, balanced=balanced)]


def test_every_image_is_in_one_batch() -> None:
    assert sorted(chain.from_iterable(epoch(balanced=False))) == list(range(95))


@pytest.mark.parametrize("balanced", [False, True])
def test_batches_have_nearly_equal_sizes_and_differ_by_epoch(*, balanced: bool) -> None:
    first = epoch(balanced=balanced)

    assert {len(batch) for batch in first} == {15, 16}
    assert first == epoch(balanced=balanced)
    assert first != epoch(balanced=balanced, seed=1)


def test_balanced_epochs_have_equally_many_images_per_class() -> None:
    indices = list(chain.from_iterable(epoch(balanced=True)))
    counts = np.bincount(LABELS[indices])

    assert len(indices) == 95
    assert counts.max() - counts.min() <= 1
    # No image of a frequent class twice, all of a rare one equally often.
    assert max(np.bincount(indices, minlength=95)[:60]) == 1
    assert set(np.bincount(indices, minlength=95)[90:]) <= {6, 7}


def test_balanced_epoch_of_one_image_per_class() -> None:
    labels = np.arange(7)

    (batch,) = batches(labels, 8, np.random.default_rng(0), balanced=True)

    assert sorted(batch.tolist()) == list(range(7))


def test_class_weights_have_equal_sums_and_mean_1() -> None:
    weights = class_weights(LABELS, 3)

    sums = np.bincount(LABELS, weights=weights[LABELS])
    assert sums == pytest.approx([95 / 3] * 3)
    assert weights[LABELS].mean() == pytest.approx(1)
