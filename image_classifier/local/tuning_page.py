"""A tuning on one page that needs no other file: its history, what mattered, every trial."""

import html
import math
from collections.abc import Sequence
from pathlib import Path
from string import Template

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from image_classifier.local.best_trial import best
from image_classifier.settings.tuning import Tuning

WIDTH, HEIGHT, MARGIN = 760, 260, 60

# Of the best half alone does PED-ANOVA know what mattered; of fewer trials nothing.
LEAST_TRIALS = 4

_PAGE = Template("""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Tuning $name</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 800px; margin: 2rem auto; padding: 0 1rem }
svg { width: 100%; height: auto } svg text { font: 12px system-ui, sans-serif; fill: #444 }
table { border-collapse: collapse; font-size: 14px }
td, th { padding: .2rem .6rem; text-align: right }
tr.best { background: #dff0e0 } tr.pruned, tr.fail { color: #777 }
</style>
<h1>Tuning $name</h1>
<p>$summary</p>
<h2>History</h2>$history
<h2>What mattered</h2>$importance
<h2>Every trial</h2>$coordinates
<table><tr>$header</tr>$rows</table>
</html>
""")


def write(path: Path, study: optuna.Study, name: str, tuning: Tuning) -> None:
    """Write the page, whole or not at all."""
    trials = study.get_trials(deepcopy=False)
    done = [each for each in trials if each.state == TrialState.COMPLETE]
    found = best(study)
    number = None if found is None else found.number
    names = list(tuning.ranges)
    text = _PAGE.substitute(
        name=html.escape(name),
        summary=_summary(found, trials, done, tuning),
        history=_history(done, tuning),
        importance=_importance(study, done),
        coordinates=_coordinates(done, names, tuning),
        header="".join(
            f"<th>{html.escape(word)}</th>" for word in ("trial", "state", tuning.objective, *names)
        ),
        rows="".join(_row(each, names, is_best=each.number == number) for each in trials),
    )
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _summary(
    found: FrozenTrial | None,
    trials: Sequence[FrozenTrial],
    done: Sequence[FrozenTrial],
    tuning: Tuning,
) -> str:
    pruned = sum(each.state == TrialState.PRUNED for each in trials)
    counted = f"{len(trials)} trials, {len(done)} to their end, {pruned} ended early."
    if found is None:
        return counted
    chosen = ", ".join(f"{key} {_short(value)}" for key, value in found.params.items())
    value = f"{tuning.objective} {found.value:.5g}"
    return html.escape(f"{counted} Best is trial {found.number}: {value} with {chosen}.")


def _history(done: Sequence[FrozenTrial], tuning: Tuning) -> str:
    """Return every trial's objective as a dot, and the best so far as a line."""
    if not done:
        return "<p>No trial has come to its end.</p>"
    values = [float(each.value or 0) for each in done]
    low, high = min(values), max(values)
    last = max(each.number for each in done) or 1
    reached, steps, dots = values[0], [], []
    for each, value in zip(done, values, strict=True):
        reached = min(reached, value) if tuning.is_minimized else max(reached, value)
        x = MARGIN + each.number / last * (WIDTH - 2 * MARGIN)
        steps.append(f"{x:.1f},{_height(reached, low, high):.1f}")
        y = _height(value, low, high)
        title = f"<title>trial {each.number}: {value:.5g}</title>"
        dots.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#3b6ea5">{title}</circle>')
    line = f'<polyline points="{" ".join(steps)}" fill="none" stroke="#d77b28" stroke-width="2"/>'
    ends = (_label(4, high, low, high) + _label(4, low, low, high)) if high > low else ""
    caption = f'<text x="{MARGIN}" y="{HEIGHT - 8}">trial 0 to {last}; orange: best so far</text>'
    return _svg(line + "".join(dots) + ends + caption)


def _importance(study: optuna.Study, done: Sequence[FrozenTrial]) -> str:
    if len(done) < LEAST_TRIALS:
        return f"<p>Known from {LEAST_TRIALS} trials on.</p>"
    found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    bars = []
    for place, (name, share) in enumerate(found.items()):
        y, width = 12 + place * 28, max(1.0, share * (WIDTH - 340))
        bars.append(f'<text x="0" y="{y + 13}">{html.escape(name)}</text>')
        bars.append(f'<rect x="220" y="{y}" width="{width:.1f}" height="18" fill="#3b6ea5"/>')
        bars.append(f'<text x="{228 + width:.1f}" y="{y + 13}">{share:.0%}</text>')
    return _svg("".join(bars), 24 + 28 * len(found))


def _coordinates(done: Sequence[FrozenTrial], names: Sequence[str], tuning: Tuning) -> str:
    """Return a line a trial, an axis a hyperparameter, the objective last; better is darker."""
    if not done:
        return ""
    axes: list[Sequence[float]] = [
        [_place(each.params[name], name, tuning) for each in done] for name in names
    ]
    values = [float(each.value or 0) for each in done]
    low, high = min(values), max(values)
    axes.append([(value - low) / (high - low or 1) for value in values])
    step = (WIDTH - 2 * MARGIN) / max(1, len(axes) - 1)
    parts = []
    for place, name in enumerate([*names, tuning.objective]):
        x = MARGIN + place * step
        parts.append(f'<line x1="{x}" x2="{x}" y1="20" y2="{HEIGHT - 40}" stroke="#bbb"/>')
        label = f'text-anchor="middle" x="{x}" y="{HEIGHT - 20}"'
        parts.append(f"<text {label}>{html.escape(name)}</text>")
    for number, goodness in enumerate(axes[-1]):
        shade = 1 - goodness if tuning.is_minimized else goodness
        points = " ".join(
            f"{MARGIN + place * step:.1f},{HEIGHT - 40 - axis[number] * (HEIGHT - 60):.1f}"
            for place, axis in enumerate(axes)
        )
        color = f'stroke="#3b6ea5" stroke-opacity="{0.15 + 0.85 * shade:.2f}"'
        parts.append(f'<polyline points="{points}" fill="none" {color} stroke-width="2"/>')
    return _svg("".join(parts))


def _place(value: object, name: str, tuning: Tuning) -> float:
    """Return a value's place on its axis, 0 to 1."""
    found = tuning.ranges[name]
    if found.values:
        return [str(each) for each in found.values].index(str(value)) / max(
            1, len(found.values) - 1
        )
    number, low, high = float(str(value)), found.low, found.high
    if found.scaling == "Logarithmic":
        number, low, high = math.log(number), math.log(low), math.log(high)
    return (number - low) / (high - low)


def _row(each: FrozenTrial, names: Sequence[str], *, is_best: bool) -> str:
    state = each.state.name.lower()
    value = "" if each.value is None else f"{each.value:.5g}"
    shown = [_short(each.params.get(name, "")) for name in names]
    cells = "".join(
        f"<td>{html.escape(word)}</td>" for word in (str(each.number), state, value, *shown)
    )
    return f'<tr class="{"best" if is_best else state}">{cells}</tr>'


def _height(value: float, low: float, high: float) -> float:
    return HEIGHT - 40 - (value - low) / (high - low or 1) * (HEIGHT - 80)


def _label(x: float, value: float, low: float, high: float) -> str:
    return f'<text x="{x}" y="{_height(value, low, high) + 4:.1f}">{value:.4g}</text>'


def _svg(content: str, height: int = HEIGHT) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{content}</svg>'


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
