"""Charts as SVG within a page: lines, bars, histograms."""

import html
import itertools
import math
from collections.abc import Mapping, Sequence

# Told apart by color-blind people too (Okabe and Ito 2008).
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 640, 240, 64, 28, 12

# Points of a line: more are too close to see.
MAX_POINTS = 800

Line = Sequence[tuple[float, float]]


def lines(series: Mapping[str, Line], *, across: str, logarithmic: bool = False) -> str:
    """Draw lines with their legend, but for what is no number or has no logarithm."""
    shown = {name: _thin(_drawable(line, logarithmic)) for name, line in series.items()}
    shown = {name: line for name, line in shown.items() if line}
    if not shown:
        return ""
    points = [point for line in shown.values() for point in line]
    x_low, x_high = _span([x for x, _ in points])
    y_low, y_high = _span([y for _, y in points])

    def place(x: float, y: float) -> str:
        across_share, up_share = (x - x_low) / (x_high - x_low), (y - y_low) / (y_high - y_low)
        left = LEFT + across_share * (WIDTH - LEFT - 10)
        return f"{left:.1f},{HEIGHT - BOTTOM - up_share * (HEIGHT - BOTTOM - TOP):.1f}"

    parts = [_axes(x_low, x_high, y_low, y_high, across, logarithmic=logarithmic)]
    for number, line in enumerate(shown.values()):
        color = COLORS[number % len(COLORS)]
        path = " ".join(place(x, y) for x, y in line)
        parts.append(f'<polyline fill="none" stroke="{color}" stroke-width="1.5" points="{path}"/>')
    return _svg(parts) + _legend(list(shown))


def histogram(values: Sequence[float], *, across: str, bins: int = 40) -> str:
    """Draw how often values come."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return ""
    low, high = _span(known)
    counts = [0] * bins
    for value in known:
        counts[min(int((value - low) / (high - low) * bins), bins - 1)] += 1
    width = (WIDTH - LEFT - 10) / bins
    parts = [_axes(low, high, 0, max(counts), across, logarithmic=False)]
    for number, count in enumerate(counts):
        tall = count / max(counts) * (HEIGHT - BOTTOM - TOP)
        left, top = LEFT + number * width, HEIGHT - BOTTOM - tall
        parts.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{width - 1:.1f}" height="{tall:.1f}" '
            f'fill="{COLORS[0]}"/>'
        )
    return _svg(parts)


def shares(values: Mapping[str, float]) -> str:
    """Draw the parts of a whole as one bar."""
    total = sum(values.values())
    if total <= 0:
        return ""
    parts, left = [], 0.0
    for number, value in enumerate(values.values()):
        wide = WIDTH * value / total
        color = COLORS[number % len(COLORS)]
        parts.append(f'<rect x="{left:.1f}" y="0" width="{wide:.1f}" height="24" fill="{color}"/>')
        left += wide
    names = [f"{name}: {100 * value / total:.1f} %" for name, value in values.items()]
    return _svg(parts, height=24) + _legend(names)


def _drawable(line: Line, logarithmic: bool) -> list[tuple[float, float]]:  # noqa: FBT001
    if logarithmic:
        return [(x, math.log10(y)) for x, y in line if math.isfinite(y) and y > 0]
    return [(x, y) for x, y in line if math.isfinite(y)]


def _thin(line: list[tuple[float, float]]) -> list[tuple[float, float]]:
    step = math.ceil(len(line) / MAX_POINTS) or 1
    return line[::step]


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _axes(
    x_low: float, x_high: float, y_low: float, y_high: float, across: str, *, logarithmic: bool
) -> str:
    top, bottom = (10**y_high, 10**y_low) if logarithmic else (y_high, y_low)
    base = HEIGHT - BOTTOM
    return (
        f'<path d="M{LEFT},{TOP} V{base} H{WIDTH - 10}" fill="none" stroke="#888"/>'
        f'<text x="{LEFT - 6}" y="{TOP + 8}" text-anchor="end">{top:.4g}</text>'
        f'<text x="{LEFT - 6}" y="{base}" text-anchor="end">{bottom:.4g}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 8}">{x_low:.5g}</text>'
        f'<text x="{WIDTH - 10}" y="{HEIGHT - 8}" text-anchor="end">{x_high:.5g}</text>'
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">{html.escape(across)}</text>'
    )


def _svg(parts: Sequence[str], height: int = HEIGHT) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{"".join(parts)}</svg>'


def _legend(names: Sequence[str]) -> str:
    entries = [
        f'<span><i style="background:{color}"></i>{html.escape(name)}</span>'
        for name, color in zip(names, itertools.cycle(COLORS), strict=False)
    ]
    return f'<p class="legend">{"".join(entries)}</p>'
