"""The range test for the peak learning rate."""

import math
from collections.abc import Callable

import pytest

from container.training.schedule import HIGHEST_RATE, LOWEST_RATE, SEARCH_STEPS, find_peak


def gradient_descent(curvature: float, steps: list[float]) -> Callable[[int, float], float]:
    """Return a parabola's loss under gradient descent, which diverges above 2 / curvature."""
    position = 1.0

    def loss_at(_number: int, rate: float) -> float:
        nonlocal position
        steps.append(rate)
        loss = curvature * position**2 / 2
        position -= rate * curvature * position
        return loss

    return loss_at


@pytest.mark.parametrize("curvature", [1.0, 30.0, 1000.0])
def test_the_search_finds_a_fast_and_stable_rate(curvature: float) -> None:
    found = find_peak(gradient_descent(curvature, []))

    assert 0.01 < found * curvature < 2


def test_the_search_ends_when_the_loss_diverges() -> None:
    steps: list[float] = []

    find_peak(gradient_descent(1000.0, steps))

    assert 0.002 < steps[-1] < 1
    assert len(steps) < SEARCH_STEPS


def test_rates_increase_from_the_lowest_to_the_highest() -> None:
    steps: list[float] = []

    find_peak(lambda _, rate: steps.append(rate) or 1.0)  # type: ignore[func-returns-value]

    assert [steps[0], steps[-1]] == pytest.approx([LOWEST_RATE, HIGHEST_RATE])
    assert steps == sorted(steps)
    assert len(steps) == SEARCH_STEPS


def test_a_loss_of_nan_ends_the_search_without_an_error() -> None:
    assert LOWEST_RATE <= find_peak(lambda _, rate: math.nan if rate > 1e-3 else -rate) < 1e-3
