"""Charts of the debugger's report: axes from zero with round numbers, readable in dark mode."""

import re

import pytest

from container.debugger import charts


def labels(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_axis_of_values_starts_at_zero() -> None:
    plot = charts.lines({"loss": [(0, 0.93), (10, 0.71)]}, title="Losses", x_label="step")

    assert labels(plot)[1:] == ["0", "0.25", "0.5", "0.75", "1", "0", "2.5", "5", "7.5", "10"]
    assert 'aria-label="Losses"' in plot


def test_axis_of_percentages_ends_at_100() -> None:
    series = {"cpu": [(0.0, 3.0), (1.0, 4.0)]}

    plot = charts.lines(series, title="CPU, %", x_label="seconds", y_max=100)

    assert labels(plot)[1:6] == ["0", "25", "50", "75", "100"]


def test_negative_values_are_drawn() -> None:
    plot = charts.lines({"a": [(0, -3), (1, 5)]}, title="a", x_label="step")

    assert labels(plot)[1:6] == ["-4", "-2", "0", "2", "4"]
    y = [float(pair.split(",")[1]) for pair in re.findall(r'points="(.*?)"', plot)[0].split()]
    assert charts.TOP <= y[1] < y[0] <= charts.HEIGHT - charts.BOTTOM


def test_logarithmic_axis_has_powers_of_ten() -> None:
    series = {"a": [(0, 3e-5), (1, 0.2), (2, 0.0), (3, float("nan"))]}

    plot = charts.lines(series, title="a", x_label="step", logarithmic=True)

    assert labels(plot)[1:4] == ["1e-05", "0.001", "0.1"]
    assert len(re.findall(r'points="(.*?)"', plot)[0].split()) == 2


@pytest.mark.parametrize("value", [0.0, 1e-9, 7.0, 1e12])
def test_equal_values_are_drawn(value: float) -> None:
    plot = charts.lines({"a": [(5, value)]}, title="a", x_label="step")

    y = float(re.findall(r'points="[\d.]+,(.*?)"', plot)[0])
    assert charts.TOP <= y <= charts.HEIGHT - charts.BOTTOM


def test_histogram_starts_at_zero_and_counts_all_values() -> None:
    plot = charts.histogram([20.0, 20.5, 21.0, float("inf")], title="steps", x_label="ms")

    assert labels(plot)[1:] == ["0", "1", "2", "0", "10", "20"]
    assert charts.histogram([], title="steps", x_label="ms") == ""


def test_colors_and_texts_are_the_stylesheets() -> None:
    plots = (
        charts.lines({"<b>": [(0, 1)]}, title="<b>", x_label="<b>"),
        charts.stacked_bar({"<b>": 1.0}, title="<b>"),
    )

    for plot in plots:
        assert "<b>" not in plot
        assert not re.search(r"#[0-9a-f]{3}", plot)
        assert "var(--series-1)" in plot
