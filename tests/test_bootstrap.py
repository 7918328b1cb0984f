"""Confidence intervals, compared with drawing the images one by one."""

import numpy as np
import numpy.typing as npt
import pytest

from container.training.evaluation import bootstrap
from container.training.evaluation.bootstrap import intervals
from container.training.evaluation.evaluation import Evaluation, confusion_matrix, wilson

CONFUSION = np.array([[30, 6, 4], [5, 20, 0], [3, 0, 12]])


def naive(confusion: npt.NDArray[np.int64], resamples: int) -> dict[str, list[float]]:
    """Draw single images; return intervals by name, such as `recall 1` for class 1."""
    random = np.random.default_rng(1)
    labels, predicted = np.nonzero(confusion)
    labels = np.repeat(labels, confusion[confusion > 0])
    predicted = np.repeat(predicted, confusion[confusion > 0])
    found: dict[str, list[float]] = {}
    for _ in range(resamples):
        drawn = random.integers(0, len(labels), len(labels))
        true, drawn_predicted = labels[drawn], predicted[drawn]
        recalls, precisions, f1s = [], [], []
        for label in range(len(confusion)):
            right = int(((true == label) & (drawn_predicted == label)).sum())
            recalls.append(right / (true == label).sum())
            precisions.append(right / (drawn_predicted == label).sum())
            f1s.append(2 * recalls[-1] * precisions[-1] / (recalls[-1] + precisions[-1]))
        scores = {"recall": recalls, "precision": precisions, "f1": f1s}
        for name, values in scores.items():
            found.setdefault(name, []).append(float(np.mean(values)))
            for label, value in enumerate(values):
                found.setdefault(f"{name} {label}", []).append(float(value))
    return {name: np.quantile(values, (0.025, 0.975)).tolist() for name, values in found.items()}


def test_intervals_equal_those_of_drawing_single_images() -> None:
    expected = naive(CONFUSION, 3000)

    found = intervals(Evaluation(0.0, CONFUSION), resamples=3000)

    # Every class occurs in every resample, so this is the same as the recall.
    assert found.averages["balanced_accuracy"] == pytest.approx(expected["recall"], abs=0.012)
    for name in ("precision", "recall", "f1"):
        assert found.averages[name] == pytest.approx(expected[name], abs=0.012)
        for label in range(3):
            assert found.by_class[name][label] == pytest.approx(
                expected[f"{name} {label}"], abs=0.03
            )


def test_macro_recall_has_the_interval_of_the_balanced_accuracy_if_they_are_equal() -> None:
    found = intervals(Evaluation(0.0, np.array([[2, 0, 0], [1, 1, 0], [0, 0, 2]]))).averages

    assert found["recall"].tolist() == found["balanced_accuracy"].tolist()


def test_intervals_cover_the_true_value_in_95_percent() -> None:
    random, truth, hits = np.random.default_rng(0), np.array([0.9, 0.6]), 0
    for _ in range(300):
        labels = random.integers(0, 2, 150)
        right = random.random(150) < truth[labels]
        confusion = confusion_matrix(labels, np.where(right, labels, 1 - labels), 2)
        low, high = intervals(Evaluation(0.0, confusion), 200).averages["balanced_accuracy"]
        hits += low <= truth.mean() <= high

    assert 0.91 < hits / 300 < 0.98


def test_drawing_in_parts_has_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = intervals(Evaluation(0.0, CONFUSION), 100)
    monkeypatch.setattr(bootstrap, "MAX_DRAWN", 21)

    parts = intervals(Evaluation(0.0, CONFUSION), 100)

    for name, interval in whole.averages.items():
        assert parts.averages[name].tolist() == interval.tolist()
    for name, interval in whole.by_class.items():
        assert parts.by_class[name].tolist() == interval.tolist()


def test_accuracy_has_wilsons_interval() -> None:
    evaluation = Evaluation(0.0, CONFUSION)

    found = intervals(evaluation, 10).averages["accuracy"]

    assert found.tolist() == wilson(62 / 80, 80).tolist()


def test_intervals_without_mistakes_have_a_width() -> None:
    found = intervals(Evaluation(0.0, np.diag([40, 3])))

    for name, interval in found.averages.items():
        assert interval.tolist() == wilson(1.0, 43).tolist(), name
    for name, by_class in found.by_class.items():
        assert by_class.tolist() == wilson([1.0, 1.0], [40, 3]).tolist(), name


def test_class_without_images_has_the_interval_0_to_1() -> None:
    found = intervals(Evaluation(0.0, np.array([[5, 1, 0], [1, 5, 0], [0, 0, 0]])))

    for name, by_class in found.by_class.items():
        assert by_class[2].tolist() == [0, 1], name


def test_class_that_is_never_predicted_has_wilsons_interval() -> None:
    found = intervals(Evaluation(0.0, np.array([[20, 0], [4, 0]])))

    assert found.by_class["recall"][1].tolist() == wilson(0.0, 4).tolist()
    assert found.by_class["f1"][1].tolist() == wilson(0.0, 4).tolist()
    assert found.by_class["precision"][1].tolist() == [0, 1]
