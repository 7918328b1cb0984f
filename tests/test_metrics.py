"""The log lines that SageMaker reads metrics from, and the comparison of two epochs."""

import re

import pytest

from container.classifier.metric_lines import METRIC_DEFINITIONS, METRIC_NAMES, log_line
from container.training.evaluation.evaluation import is_better


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-7, 123456.789, 1e20, -0.5])
def test_each_expression_matches_its_own_value_only(value: float) -> None:
    values = {name: value * (1 + place) for place, name in enumerate(METRIC_NAMES)}
    line = "2026-01-01 INFO " + log_line({"epoch": 3, **values})

    for definition in METRIC_DEFINITIONS:
        matches = re.findall(definition["Regex"], line)
        assert len(matches) == 1
        assert float(matches[0]) == pytest.approx(values[definition["Name"]], rel=1e-4)


def test_other_log_lines_match_no_expression() -> None:
    line = "hyperparameters: network=small objective=val_accuracy learning_rate=0.1 val_fraction=1"

    assert not [d for d in METRIC_DEFINITIONS if re.search(d["Regex"], line)]


def test_nan_and_infinity_match_no_expression() -> None:
    line = log_line({"val_loss": float("nan"), "val_accuracy": float("inf")})

    assert not [d for d in METRIC_DEFINITIONS if re.search(d["Regex"], line)]


@pytest.mark.parametrize(
    ("objective", "metrics", "best", "expected"),
    [
        ("val_accuracy", (0.9, 9), (0.8, 1), True),
        ("val_accuracy", (0.8, 0), (0.9, 1), False),
        ("val_accuracy", (0.9, 1), (0.9, 2), True),
        ("val_accuracy", (0.9, 1), (0.9, 1), False),
        ("val_balanced_accuracy", (0.8, 2), (0.7, 1), True),
        ("val_loss", (0.8, 0.1), (0.9, 0.2), True),
        ("val_loss", (0.9, 0.3), (0.8, 0.2), False),
    ],
)
def test_objective_decides_and_the_loss_breaks_ties(
    objective: str, metrics: tuple[float, float], best: tuple[float, float], *, expected: bool
) -> None:
    accuracy = "val_accuracy" if objective == "val_loss" else objective
    new, old = ({accuracy: pair[0], "val_loss": pair[1]} for pair in (metrics, best))

    assert is_better(objective, new, old) is expected
