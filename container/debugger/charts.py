"""Charts as inline SVG: lines, histograms and stacked bars."""

import html
import itertools
import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

# Distinguishable by color-blind people too (Okabe and Ito 2008).
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")

WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM, TOP = 640, 240, 64, 10, 28, 12
INNER_WIDTH, INNER_HEIGHT = WIDTH - LEFT - RIGHT, HEIGHT - BOTTOM - TOP

# Points of a line: more cannot be distinguished.
MAX_POINTS = 800

Line = Sequence[tuple[float, float]]


def lines(series: Mapping[str, Line], *, x_label: str, logarithmic: bool = False) -> Markup:
    """Draw lines with a legend; values that are not finite or have no logarithm are left out."""
    shown = {name: _drawable(line, logarithmic=logarithmic) for name, line in series.items()}
    shown = {name: line for name, line in shown.items() if line}
    if not shown:
        return Markup()
    points = [point for line in shown.values() for point in line]
    x_low, x_high = _span([x for x, _ in points])
    y_low, y_high = _span([y for _, y in points])
    labels = (10**y_low, 10**y_high) if logarithmic else (y_low, y_high)
    parts = [_axes((x_low, x_high), labels, x_label)]
    for line, color in zip(shown.values(), itertools.cycle(COLORS), strict=False):
        path = " ".join(
            f"{LEFT + (x - x_low) / (x_high - x_low) * INNER_WIDTH:.1f},"
            f"{HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * INNER_HEIGHT:.1f}"
            for x, y in line
        )
        parts.append(f'<polyline fill="none" stroke="{color}" stroke-width="1.5" points="{path}"/>')
    return _svg(parts, legend=shown)


def histogram(values: Sequence[float], *, x_label: str, bins: int = 40) -> Markup:
    """Draw the histogram of the finite values."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return Markup()
    low, high = _span(known)
    counts = [0] * bins
    for value in known:
        counts[min(int((value - low) / (high - low) * bins), bins - 1)] += 1
    width = INNER_WIDTH / bins
    parts = [_axes((low, high), (0, max(counts)), x_label)]
    for number, count in enumerate(counts):
        height = count / max(counts) * INNER_HEIGHT
        x, y = LEFT + number * width, HEIGHT - BOTTOM - height
        parts.append(_bar(x, y, width - 1, height, COLORS[0]))
    return _svg(parts)


def stacked_bar(values: Mapping[str, float]) -> Markup:
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
    return _svg(parts, height=24, legend=names)


def _drawable(line: Line, *, logarithmic: bool) -> Line:
    points = [(x, y) for x, y in line if math.isfinite(y)]
    if logarithmic:
        points = [(x, math.log10(y)) for x, y in points if y > 0]
    return points[:: math.ceil(len(points) / MAX_POINTS) or 1]


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _axes(x_span: tuple[float, float], y_span: tuple[float, float], x_label: str) -> str:
    base, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    texts = [
        (LEFT - 6, TOP + 8, "end", f"{y_span[1]:.4g}"),
        (LEFT - 6, base, "end", f"{y_span[0]:.4g}"),
        (LEFT, HEIGHT - 8, "start", f"{x_span[0]:.5g}"),
        (right, HEIGHT - 8, "end", f"{x_span[1]:.5g}"),
        (WIDTH / 2, HEIGHT - 8, "middle", html.escape(x_label)),
    ]
    labels = [f'<text x="{x}" y="{y}" text-anchor="{at}">{text}</text>' for x, y, at, text in texts]
    path = f'<path d="M{LEFT},{TOP} V{base} H{right}" fill="none" stroke="#888"/>'
    return path + "".join(labels)


def _bar(x: float, y: float, width: float, height: float, color: str) -> str:
    size = f'width="{width:.1f}" height="{height:.1f}"'
    return f'<rect x="{x:.1f}" y="{y:.1f}" {size} fill="{color}"/>'


def _svg(
    parts: Sequence[str], *, height: int = HEIGHT, legend: Sequence[str] | Mapping[str, object] = ()
) -> Markup:
    svg = f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{"".join(parts)}</svg>'
    entries = [
        f'<span><i style="background:{color}"></i>{html.escape(name)}</span>'
        for name, color in zip(legend, itertools.cycle(COLORS), strict=False)
    ]
    if entries:
        svg += f'<p class="legend">{"".join(entries)}</p>'
    return Markup(svg)  # noqa: S704 - all text is escaped
