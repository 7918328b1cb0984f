"""Charts as inline SVG: lines, histograms and stacked bars. The reports' stylesheet colors them."""

import html
import itertools
import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

# Variables of the stylesheet; distinguishable by color-blind people too (Okabe and Ito 2008).
COLORS = tuple(f"var(--series-{number})" for number in range(1, 8))

WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM, TOP = 640, 240, 64, 10, 36, 12
INNER_WIDTH, INNER_HEIGHT = WIDTH - LEFT - RIGHT, HEIGHT - BOTTOM - TOP

# Points of a line: more cannot be distinguished.
MAX_POINTS = 800

# Intervals between the ticks of an axis; there may be one or two more.
INTERVALS = 4

Line = Sequence[tuple[float, float]]


def lines(
    series: Mapping[str, Line],
    *,
    title: str,
    x_label: str,
    logarithmic: bool = False,
    y_max: float | None = None,
) -> Markup:
    """Draw lines with a legend; values that are not finite or have no logarithm are left out.

    Linear axes of values start at zero, unless a value is negative. `y_max` is the end of an axis
    whose values have a limit, such as 100 %.
    """
    shown = {name: _drawable(line, logarithmic=logarithmic) for name, line in series.items()}
    shown = {name: line for name, line in shown.items() if line}
    if not shown:
        return Markup()
    points = [point for line in shown.values() for point in line]
    x_low, x_high = _span([x for x, _ in points])
    values = [y for _, y in points]
    y_ticks = _decades(values) if logarithmic else _ticks(min(0, *values), y_max or max(values))
    y_low, y_high = y_ticks[0], max(y_ticks[-1], *values)
    labels = {(y - y_low) / (y_high - y_low): f"{10**y if logarithmic else y:.4g}" for y in y_ticks}
    parts = [_axes((x_low, x_high), labels, x_label)]
    for line, color in zip(shown.values(), itertools.cycle(COLORS), strict=False):
        path = " ".join(
            f"{LEFT + (x - x_low) / (x_high - x_low) * INNER_WIDTH:.1f},"
            f"{HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * INNER_HEIGHT:.1f}"
            for x, y in line
        )
        style = f"fill:none;stroke:{color};stroke-width:1.5"
        parts.append(f'<polyline style="{style}" points="{path}"/>')
    return _svg(parts, title, legend=shown)


def histogram(values: Sequence[float], *, title: str, x_label: str, bins: int = 40) -> Markup:
    """Draw the histogram of the finite values, which are not negative; it starts at zero."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return Markup()
    high = max(known) or 1.0
    counts = [0] * bins
    for value in known:
        counts[min(int(value / high * bins), bins - 1)] += 1
    ticks = _ticks(0, max(counts), is_whole=True)
    labels = {tick / ticks[-1]: f"{tick:.4g}" for tick in ticks}
    width = INNER_WIDTH / bins
    parts = [_axes((0, high), labels, x_label)]
    for number, count in enumerate(counts):
        height = count / ticks[-1] * INNER_HEIGHT
        x, y = LEFT + number * width, HEIGHT - BOTTOM - height
        parts.append(_bar(x, y, width - 1, height, COLORS[0]))
    return _svg(parts, title)


def stacked_bar(values: Mapping[str, float], *, title: str) -> Markup:
    """Draw the parts of a whole as one stacked bar."""
    total = sum(values.values())
    if total <= 0:
        return Markup()
    parts, x = [], 0.0
    for value, color in zip(values.values(), itertools.cycle(COLORS), strict=False):
        width = WIDTH * value / total
        parts.append(_bar(x, 0, width, 24, color))
        x += width
    names = [f"{name}: {100 * value / total:.1f} %" for name, value in values.items()]
    return _svg(parts, title, height=24, legend=names)


def _drawable(line: Line, *, logarithmic: bool) -> Line:
    points = [(x, y) for x, y in line if math.isfinite(y)]
    if logarithmic:
        points = [(x, math.log10(y)) for x, y in points if y > 0]
    return points[:: math.ceil(len(points) / MAX_POINTS) or 1]


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _ticks(low: float, high: float, *, is_whole: bool = False) -> list[float]:
    """Return round numbers at equal distances, the first and the last around `low` and `high`."""
    distance = ((high - low) or 1.0) / INTERVALS
    if is_whole:
        distance = max(distance, 1.0)
    power = 10 ** math.floor(math.log10(distance))
    factors = (1, 2, 5, 10) if is_whole else (1, 2, 2.5, 5, 10)
    step = next(factor * power for factor in factors if factor * power >= distance)
    first, last = math.floor(low / step), max(math.ceil(high / step), math.floor(low / step) + 1)
    return [number * step for number in range(first, last + 1)]


def _decades(logarithms: Sequence[float]) -> list[float]:
    """Return the powers of ten around the logarithms of values, as logarithms."""
    low, high = math.floor(min(logarithms)), math.ceil(max(logarithms))
    high = max(high, low + 1)
    step = math.ceil((high - low) / INTERVALS)
    return [float(power) for power in range(low, high + step, step)]


def _axes(x_span: tuple[float, float], y_labels: Mapping[float, str], x_label: str) -> str:
    """Draw both axes; labels on the axis of values are at fractions of its height."""
    base, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    texts = [(WIDTH / 2, HEIGHT - 2.0, "middle", html.escape(x_label))]
    grid = ""
    for fraction, label in y_labels.items():
        y = base - fraction * INNER_HEIGHT
        texts.append((LEFT - 6, y + 4, "end", label))
        grid += f'<path class="grid" d="M{LEFT},{y:.1f} H{right}"/>'
    low, high = x_span
    for tick in _ticks(low, high):
        if low <= tick <= high:
            x = LEFT + (tick - low) / (high - low) * INNER_WIDTH
            texts.append((x, base + 15, "middle", f"{tick:.5g}"))
    labels = [
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{at}">{text}</text>'
        for x, y, at, text in texts
    ]
    return grid + f'<path class="axis" d="M{LEFT},{TOP} V{base} H{right}"/>' + "".join(labels)


def _bar(x: float, y: float, width: float, height: float, color: str) -> str:
    size = f'width="{width:.1f}" height="{height:.1f}"'
    return f'<rect x="{x:.1f}" y="{y:.1f}" {size} style="fill:{color}"/>'


def _svg(
    parts: Sequence[str],
    title: str,
    *,
    height: int = HEIGHT,
    legend: Sequence[str] | Mapping[str, object] = (),
) -> Markup:
    named = f'role="img" aria-label="{html.escape(title)}"'
    svg = f'<svg viewBox="0 0 {WIDTH} {height}" {named}>{"".join(parts)}</svg>'
    entries = [
        f'<span><i style="background:{color}"></i>{html.escape(name)}</span>'
        for name, color in zip(legend, itertools.cycle(COLORS), strict=False)
    ]
    if entries:
        svg += f'<p class="legend">{"".join(entries)}</p>'
    return Markup(f'<div class="chart">{svg}</div>')  # noqa: S704 - all text is escaped
