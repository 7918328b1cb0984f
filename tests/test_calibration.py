"""Temperature and calibration error, compared with a grid search and naive counting."""

import logging

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn.functional import cross_entropy

from container.training.evaluation.calibration import (
    HIGHEST_TEMPERATURE,
    LOWEST_TEMPERATURE,
    MANY_IMAGES,
    Calibration,
    Reliability,
    fit_temperature,
    fitting_images,
    helpful_temperature,
    predictions_of,
)

Logits = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


def drawn(
    true_temperature: float, *, images: int = 4000, classes: int = 5, seed: int = 0
) -> tuple[Logits, Labels]:
    """Draw logits, and labels with the probabilities of the logits at a temperature."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, classes, generator=generator) * 3
    shares = torch.softmax(logits / true_temperature, dim=1)
    labels = torch.multinomial(shares, 1, generator=generator)[:, 0]
    return logits.numpy(), labels.numpy()


def loss(logits: Logits, labels: Labels, temperature: float) -> float:
    scaled = torch.from_numpy(logits).double() / temperature
    return float(cross_entropy(scaled, torch.from_numpy(labels)))


@pytest.mark.parametrize("true_temperature", [0.3, 1.0, 2.5])
def test_temperature_equals_that_of_a_grid_search(true_temperature: float) -> None:
    logits, labels = drawn(true_temperature)
    grid = np.geomspace(0.1, 10, 4001)
    expected = grid[np.argmin([loss(logits, labels, temperature) for temperature in grid])]

    found = fit_temperature(logits, labels)

    assert found == pytest.approx(expected, rel=2e-3)
    assert found == pytest.approx(true_temperature, rel=0.1)


def test_doubled_logits_have_double_the_temperature() -> None:
    logits, labels = drawn(1.0)

    assert fit_temperature(2 * logits, labels) == pytest.approx(
        2 * fit_temperature(logits, labels), rel=1e-3
    )


@pytest.mark.parametrize("seed", range(20))
def test_temperature_never_lowers_the_likelihood(seed: int) -> None:
    random = np.random.default_rng(seed)
    logits = random.normal(0, random.choice([0.01, 1, 50]), (12, 4)).astype(np.float32)
    labels = random.integers(0, 4, 12)

    temperature = fit_temperature(logits, labels)

    assert LOWEST_TEMPERATURE <= temperature <= HIGHEST_TEMPERATURE
    assert loss(logits, labels, temperature) <= loss(logits, labels, 1.0)


def test_temperature_is_1_without_mistakes() -> None:
    logits, labels = drawn(1.0)

    assert fit_temperature(logits, logits.argmax(axis=1)) == 1
    assert fit_temperature(logits, labels) != 1


def test_temperature_is_the_highest_if_all_predictions_are_wrong() -> None:
    logits = np.array([[9, 0], [7, 0]], np.float32)

    found = fit_temperature(logits, np.array([1, 1]))

    assert found == pytest.approx(HIGHEST_TEMPERATURE, rel=1e-3)


def test_logits_of_any_size_have_finite_results() -> None:
    logits = np.array([[1e4, -1e4], [1e4, -1e4], [-1e4, 1e4]], np.float32)
    labels = np.array([0, 0, 0])

    temperature = fit_temperature(logits, labels)

    assert np.isfinite(predictions_of(logits, labels, temperature).loss).all()
    assert np.isfinite(Calibration.of(logits, labels, temperature).after.error)


def test_predictions_are_softmax_with_the_temperature() -> None:
    logits = np.array([[2, 0, 0], [0, 1, 0]], np.float32)
    first, second = np.exp(1) / (np.exp(1) + 2), np.exp(0.5) / (np.exp(0.5) + 2)

    found = predictions_of(logits, np.array([0, 2]), 2.0)

    assert found.predicted.tolist() == [0, 1]
    assert found.probability == pytest.approx([first, second])
    assert found.loss == pytest.approx([-np.log(first), -np.log((1 - second) / 2)])


def test_calibration_error_equals_naive_counting() -> None:
    logits, labels = drawn(2.0, images=500)
    probabilities = torch.softmax(torch.from_numpy(logits).double(), dim=1).numpy()
    expected = 0.0
    for number in range(15):
        members = [
            (max(row), int(np.argmax(row)) == label)
            for row, label in zip(probabilities, labels, strict=True)
            if number / 15 <= max(row) < (number + 1) / 15
        ]
        if members:
            confidence, accuracy = np.mean(members, axis=0)
            expected += len(members) / 500 * abs(confidence - accuracy)

    found = Reliability.of(predictions_of(logits, labels, 1.0), labels)

    assert found.error == pytest.approx(expected)
    assert found.images.sum() == 500


def test_probability_of_1_is_in_the_last_bin() -> None:
    logits = np.array([[1000, 0], [1000, 0]], np.float32)

    found = Reliability.of(predictions_of(logits, np.array([0, 1]), 1.0), np.array([0, 1]))

    assert found.images.tolist() == [0] * 14 + [2]
    assert found.error == 0.5


def test_fitted_temperature_lowers_the_calibration_error() -> None:
    logits, labels = drawn(3.0)

    found = Calibration.of(logits, labels, fit_temperature(logits, labels))

    assert found.before.error > 0.2
    assert found.after.error < 0.03


def test_temperature_that_does_not_help_is_1(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    seeds = range(8)
    calibrated = [helpful_temperature(*drawn(1.0, images=300, seed=seed)) for seed in seeds]
    overconfident = [helpful_temperature(*drawn(2.5, images=300, seed=seed)) for seed in seeds]

    assert 1 in calibrated
    assert all(temperature > 1.5 for temperature in overconfident)
    assert len(caplog.messages) == calibrated.count(1)
    assert caplog.messages[0].startswith("calibration does not help: the temperature ")


def test_one_validation_image_has_a_temperature() -> None:
    logits = np.array([[2.0, -1.0]], np.float32)

    assert helpful_temperature(logits, np.array([0])) == 1
    assert np.isfinite(helpful_temperature(logits, np.array([1])))


def test_half_of_many_images_fits_the_temperature() -> None:
    labels = np.arange(MANY_IMAGES) % 2
    assert fitting_images(labels[1:]).all()
    assert np.bincount(labels[fitting_images(labels)]).tolist() == [MANY_IMAGES / 4] * 2
