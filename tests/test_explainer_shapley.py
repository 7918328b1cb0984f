"""Shapley values of games with known values."""

import numpy as np
import numpy.typing as npt
import pytest

from image_classifier.explainer import shapley


def game(segments: int, seed: int) -> npt.NDArray[np.float64]:
    """Return a smooth game of two classes with interactions of pairs, for all coalitions."""
    random = np.random.default_rng(seed)
    single = random.normal(size=(segments, 2))
    pairs = random.normal(size=(segments, segments)) / segments
    visible = shapley.all_coalitions(segments).astype(float)
    logits = visible @ single
    logits[:, 0] += np.einsum("si,ij,sj->s", visible, pairs, visible)
    values: npt.NDArray[np.float64] = 1 / (1 + np.exp(-logits))
    return values


def numbers(rows: shapley.Coalitions) -> npt.NDArray[np.int64]:
    return rows @ (1 << np.arange(rows.shape[1]))


def regression(sample: shapley.Sample, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return Kernel SHAP's values of a game from some of its coalitions."""
    return shapley.kernel(
        sample.coalitions,
        sample.weights,
        values[numbers(sample.coalitions)],
        empty=values[0],
        full=values[-1],
    )


def test_values_of_an_additive_game_are_its_terms() -> None:
    terms = np.array([[3.0], [-1.0], [0.0]])

    values = shapley.exact(shapley.all_coalitions(3) @ terms)

    np.testing.assert_allclose(values, terms, atol=1e-12)


def test_interaction_is_divided_between_both_players() -> None:
    visible = shapley.all_coalitions(3)
    both = (visible[:, 0] & visible[:, 2]).astype(float)[:, None]

    values = shapley.exact(both)

    np.testing.assert_allclose(values[:, 0], [0.5, 0.0, 0.5], atol=1e-12)


@pytest.mark.parametrize("segments", [1, 2, 3, 5, 8])
def test_regression_over_all_coalitions_is_exact(segments: int) -> None:
    values = game(segments, seed=segments)
    sample = shapley.sample(segments, 2**segments - 2, np.random.default_rng(0))
    if segments == 1:
        sample = shapley.Sample(np.zeros((0, 1), bool), np.zeros(0))

    found = regression(sample, values)

    np.testing.assert_allclose(found, shapley.exact(values), atol=1e-9)


def test_values_of_few_samples_are_close_and_add_up() -> None:
    values = game(10, seed=0)
    sample = shapley.sample(10, 300, np.random.default_rng(0))

    found = regression(sample, values)

    np.testing.assert_allclose(found, shapley.exact(values), atol=1e-2)
    np.testing.assert_allclose(found.sum(axis=0), values[-1] - values[0], atol=1e-12)


@pytest.mark.parametrize(("segments", "count"), [(8, 100), (12, 500), (20, 498), (20, 42), (7, 60)])
def test_sample_has_distinct_coalitions_and_complements(segments: int, count: int) -> None:
    sample = shapley.sample(segments, count, np.random.default_rng(1))
    keys = set(numbers(sample.coalitions).tolist())

    assert len(keys) == len(sample.coalitions)
    assert count - 2 <= len(keys) <= count + 1
    assert {2**segments - 1 - key for key in keys} == keys
    assert not keys & {0, 2**segments - 1}
    assert sample.weights.sum() == pytest.approx(1)
    assert (sample.weights > 0).all()


def test_smallest_and_largest_coalitions_are_preferred() -> None:
    sample = shapley.sample(20, 498, np.random.default_rng(0))
    sizes = sample.coalitions.sum(axis=1)

    assert (sizes == 1).sum() == (sizes == 19).sum() == 20
    assert (sizes == 2).sum() > (sizes == 5).sum() > (sizes == 10).sum() / 2


def test_same_seed_gives_the_same_sample() -> None:
    first, second, other = (
        shapley.sample(16, 200, np.random.default_rng(seed)).coalitions for seed in (3, 3, 4)
    )

    np.testing.assert_array_equal(first, second)
    assert first.shape != other.shape or (first != other).any()
