"""HTML report on a training: advice, times, system metrics, rules, losses and tensors."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from container.classifier.report_page import template
from container.debugger import charts
from container.debugger.profiler import profile as profiles
from container.debugger.profiler import rules as profiler_rules
from container.debugger.profiler import timeline
from container.debugger.profiler.profile import Profile, percentiles
from container.debugger.reading.records import GRADIENTS, WEIGHTS, Records
from container.debugger.rules.inputs import BIAS
from container.debugger.rules.rule import ERROR, INSUFFICIENT, ISSUES, NO_ISSUES, Verdict
from container.debugger.rules.selection import RULES

TEMPLATE = Path(__file__).with_name("debug_report.html.jinja")

# Lines of a tensor plot.
MAX_LINES = 6

MAX_OPERATORS = 15

STATUSES = (ISSUES, ERROR, NO_ISSUES, INSUFFICIENT)

# Colors of the stylesheet.
STYLES = {ISSUES: "bad", ERROR: "bad", NO_ISSUES: "good", INSUFFICIENT: "faint"}

# Problems of the model precede problems of speed, and causes precede consequences: dead units pass
# no gradient, and without a gradient no weight changes.
RANK = (
    "ExplodingTensor",
    "CheckInputImages",
    "DeadRelu",
    "SaturatedActivation",
    "VanishingGradient",
    "UnchangedTensor",
    "LossNotDecreasing",
)

SYSTEM_PLOTS = {
    "CPU utilization, %": profiles.CPU,
    "I/O wait, %": profiles.IO_WAIT,
    "GPU utilization, %": profiles.GPU,
    "GPU memory utilization, %": profiles.GPU_MEMORY,
}

# Pattern and reduction of each plot.
TENSOR_PLOTS = {
    "Gradients, mean absolute value": (GRADIENTS, "abs_mean"),
    "Weights, mean absolute value": (WEIGHTS, "abs_mean"),
    "Norm of a step's change to the norm of the weights": (r"^update_ratio/", "mean"),
    "Inputs of ReLUs, variance": (".*relu_input", "variance"),
}


def render(records: Records, profile: Profile | None, verdicts: Sequence[Verdict], job: str) -> str:
    """Return the page about a training job; sections without data state that they have none."""
    profile = profile or Profile()
    groups = {"tensors": verdicts, "the profile": profiler_rules.evaluate_all(profile)}
    verdicts = [verdict for group in groups.values() for verdict in group]
    return template(TEMPLATE, number=_number).render(
        facts={"Training job": job, "Data": _data(records, profile)},
        groups=groups,
        advice=advice(verdicts),
        by_status={
            status: [verdict.rule for verdict in verdicts if verdict.status == status]
            for status in STATUSES
        },
        styles=STYLES,
        summary=_summary(profile),
        usage=profile.system_usage(),
        phases=(phases := _phases(profile)),
        phase_plot=charts.stacked_bar(phases, title="Shares of the phases"),
        operators=profile.operators,
        max_operators=MAX_OPERATORS,
        verdicts=sorted(verdicts, key=lambda verdict: STATUSES.index(verdict.status)),
        rules=RULES | profiler_rules.RULES,
        steps=_durations(profile, timeline.STEP, "ms per step"),
        loading=_durations(profile, timeline.DATA, "ms to load images"),
        system_plots=_system_plots(profile),
        tensor_plots=_loss_plot(records) | _tensor_plots(records),
    )


def advice(verdicts: Sequence[Verdict]) -> list[dict[str, object]]:
    """Return each rule's most important violation, the most useful remedy first."""
    order = [*RANK, *RULES, *profiler_rules.RULES]
    return [
        {"rule": verdict.rule, **dataclasses.asdict(worst)}
        for verdict in sorted(verdicts, key=lambda verdict: order.index(verdict.rule))
        if verdict.status == ISSUES and (worst := verdict.worst)
    ]


def _data(records: Records, profile: Profile) -> str:
    """Return what was recorded, for the top of the page."""
    counts = {
        "tensors": len({name for name, _ in records.tensors}),
        "recorded steps": len({step for step, _ in records.times}),
        "timed steps": len(profile.durations(timeline.STEP)),
        "system metrics": len(profile.metrics),
    }
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "none"


def _number(value: float) -> str:
    """Return a number with four digits, or a large one without an exponent."""
    large = 10_000
    return f"{value:,.0f}" if abs(value) >= large else f"{value:.4g}"


def _summary(profile: Profile) -> dict[str, str]:
    """Return start, end and parts of the run."""
    if not profile.events:
        return {}
    start = profile.events[0].start
    end = max(event.start + event.seconds for event in profile.events)
    duration = end - start
    rows = {"start": _clock(start), "end": _clock(end), "duration": f"{duration:.1f} s"}
    steps = profile.durations(timeline.STEP)
    if steps:
        first, last = steps[0].start, steps[-1].start + steps[-1].seconds
        rows |= {
            "training loop, start": _clock(first),
            "training loop, end": _clock(last),
            "training loop": _part(last - first, duration),
            "initialization": _part(first - start, duration),
            "finalization": _part(end - last, duration),
        }
    return rows


def _phases(profile: Profile) -> dict[str, float]:
    """Return the seconds of every phase except the initialization, the longest first."""
    seconds = profile.phase_seconds()
    seconds.pop(timeline.INITIALIZATION, None)
    return dict(sorted(seconds.items(), key=lambda item: -item[1])) if any(seconds.values()) else {}


def _durations(profile: Profile, name: str, x_label: str) -> dict[str, object]:
    milliseconds = [1000 * event.seconds for event in profile.durations(name)]
    if not milliseconds:
        return {}
    return {
        "count": len(milliseconds),
        "percentiles": percentiles(milliseconds),
        "plot": charts.histogram(milliseconds, title=f"Histogram, {x_label}", x_label=x_label),
    }


def _system_plots(profile: Profile) -> dict[str, Markup]:
    plots = {}
    for title, kind in SYSTEM_PLOTS.items():
        series = profile.values(*kind)
        if series:
            start = min(float(values[0, 0]) for values in series.values())
            shown = {
                name: [(float(x) - start, float(y)) for x, y in values]
                for name, values in list(series.items())[: len(charts.COLORS)]
            }
            plots[title] = charts.lines(shown, title=title, x_label="seconds", y_max=100)
    return plots


def _loss_plot(records: Records) -> dict[str, Markup]:
    losses = {"training": records.losses(records.training), "validation": records.losses("EVAL")}
    series = {name: [(p.order, p.value) for p in points] for name, points in losses.items()}
    plot = charts.lines(series, title="Losses", x_label="record")
    return {"Losses": plot} if plot else {}


def _tensor_plots(records: Records) -> dict[str, Markup]:
    mode = records.training
    plots = {}
    for title, (pattern, reduction) in TENSOR_PLOTS.items():
        names = [name for name in records.names(pattern, mode) if not BIAS.search(name)]
        # Evenly from the first layers to the last.
        chosen = names[:: max(1, len(names) // MAX_LINES)][:MAX_LINES]
        series = {
            name: [(point.step, point.value) for point in records.points(name, reduction, mode)]
            for name in chosen
        }
        if any(series.values()):
            full_title = f"{title} ({len(chosen)} of {len(names)} tensors)"
            plots[full_title] = charts.lines(
                series, title=full_title, x_label="step", logarithmic=True
            )
    return plots


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def _part(seconds: float, duration: float) -> str:
    return f"{seconds:.1f} s, {100 * seconds / duration:.1f} %" if duration else "0 s"
