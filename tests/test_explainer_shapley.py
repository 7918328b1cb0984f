"""Shapley values, of games whose values are known."""

import numpy as np
import numpy.typing as npt
import pytest

from image_classifier.explainer import coalitions, shapley


def game(segments: int, seed: int) -> npt.NDArray[np.float64]:
    """A smooth game with pairs that matter, of two classes, in the order of `every`."""
    random = np.random.default_rng(seed)
    alone = random.normal(size=(segments, 2))
    together = random.normal(size=(segments, segments)) / segments
    shown = coalitions.every(segments).astype(float)
    strength = shown @ alone
    strength[:, 0] += np.einsum("si,ij,sj->s", shown, together, shown)
    values: npt.NDArray[np.float64] = 1 / (1 + np.exp(-strength))
    return values


def numbers(members: coalitions.Members) -> npt.NDArray[np.int64]:
    return members @ (1 << np.arange(members.shape[1]))


def test_a_sum_is_shared_out_as_it_was_made() -> None:
    alone = np.array([[3.0], [-1.0], [0.0]])

    found = shapley.exact(coalitions.every(3) @ alone)

    np.testing.assert_allclose(found, alone, atol=1e-12)


def test_what_needs_two_is_shared_by_the_two() -> None:
    shown = coalitions.every(3)
    both = (shown[:, 0] & shown[:, 2]).astype(float)[:, None]

    found = shapley.exact(both)

    np.testing.assert_allclose(found[:, 0], [0.5, 0.0, 0.5], atol=1e-12)


@pytest.mark.parametrize("segments", [1, 2, 3, 5, 8])
def test_the_regression_over_all_coalitions_is_exact(segments: int) -> None:
    values = game(segments, seed=segments)
    chosen = coalitions.sample(segments, 2**segments - 2, np.random.default_rng(0))
    if segments == 1:
        chosen = coalitions.Sample(np.zeros((0, 1), bool), np.zeros(0))

    found = shapley.kernel(
        chosen.members,
        chosen.weights,
        values[numbers(chosen.members)],
        empty=values[0],
        full=values[-1],
    )

    np.testing.assert_allclose(found, shapley.exact(values), atol=1e-9)


def test_few_samples_come_close_and_add_up() -> None:
    values = game(10, seed=0)
    chosen = coalitions.sample(10, 300, np.random.default_rng(0))

    found = shapley.kernel(
        chosen.members,
        chosen.weights,
        values[numbers(chosen.members)],
        empty=values[0],
        full=values[-1],
    )

    np.testing.assert_allclose(found, shapley.exact(values), atol=1e-2)
    np.testing.assert_allclose(found.sum(axis=0), values[-1] - values[0], atol=1e-12)


@pytest.mark.parametrize(("segments", "count"), [(8, 100), (12, 500), (20, 498), (20, 42), (7, 60)])
def test_a_sample_is_of_different_coalitions_in_pairs(segments: int, count: int) -> None:
    chosen = coalitions.sample(segments, count, np.random.default_rng(1))
    keys = set(numbers(chosen.members).tolist())

    assert len(keys) == len(chosen.members)
    assert count - 2 <= len(keys) <= count + 1
    assert {2**segments - 1 - key for key in keys} == keys
    assert not keys & {0, 2**segments - 1}
    assert chosen.weights.sum() == pytest.approx(1)
    assert (chosen.weights > 0).all()


def test_the_smallest_and_the_largest_coalitions_come_first() -> None:
    sizes = coalitions.sample(20, 498, np.random.default_rng(0)).members.sum(axis=1)

    assert (sizes == 1).sum() == (sizes == 19).sum() == 20
    assert (sizes == 2).sum() > (sizes == 5).sum() > (sizes == 10).sum() / 2


def test_the_same_seed_chooses_the_same() -> None:
    one, same, other = (
        coalitions.sample(16, 200, np.random.default_rng(seed)).members for seed in (3, 3, 4)
    )

    np.testing.assert_array_equal(one, same)
    assert one.shape != other.shape or (one != other).any()
