"""The page on how a training went: advice, times, the machine, rules, losses and tensors."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from container.debugger import charts
from container.debugger.profiler import machine_rules, timeline
from container.debugger.profiler import rules as profiler_rules
from container.debugger.profiler.reading import Profile, percentiles
from container.debugger.reading.records import GRADIENTS, WEIGHTS, Point, Records
from container.debugger.rules.catalog import RULES
from container.debugger.rules.verdict import ISSUES, Verdict

TEMPLATE = "debug_report.html.jinja"

# Of a tensor's kind, in a plot.
MAX_LINES = 6

MAX_OPERATORS = 15

ORDER = {ISSUES: 0, "Error": 1, "NoIssuesFound": 2, "InsufficientData": 3}

# What costs the model comes before what costs time, and a cause before what follows from it: dead
# units pass no gradient, and without one nothing changes.
RANK = (
    "ExplodingTensor",
    "CheckInputImages",
    "DeadRelu",
    "SaturatedActivation",
    "VanishingGradient",
    "UnchangedTensor",
    "LossNotDecreasing",
)


def render(records: Records | None, profile: Profile | None, verdicts: Sequence[Verdict]) -> str:
    """Return the page; what was not recorded is said to be missing."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    profile = profile or Profile()
    everything = [*verdicts, *profiler_rules.judge_all(profile)]
    return environment.get_template(TEMPLATE).render(
        advice=advice(everything),
        summary=_summary(profile),
        usage=profiler_rules.system_usage(profile),
        phases=_phases(profile),
        operators=_operators(profile),
        rules=[_row(each) for each in sorted(everything, key=lambda v: ORDER[v.status])],
        steps=_steps(profile),
        loading=_data(profile),
        system_plots=_system_plots(profile),
        loss_plot=Markup(_losses(records)) if records else Markup(),  # noqa: S704 - ours, escaped
        tensor_plots=_tensor_plots(records) if records else {},
    )


def advice(verdicts: Sequence[Verdict]) -> list[dict[str, object]]:
    """Return what to change, the most useful first."""
    found = [verdict for verdict in verdicts if verdict.status == ISSUES and verdict.worst]
    order = [*RANK, *RULES, *profiler_rules.RULES]
    found.sort(key=lambda verdict: order.index(verdict.rule))
    rows: list[dict[str, object]] = []
    for verdict in found:
        worst = verdict.worst
        if worst is not None:
            rows.append({"rule": verdict.rule, **dataclasses.asdict(worst)})
    return rows


def _summary(profile: Profile) -> dict[str, str]:
    """Return start, end and parts of the run."""
    if not profile.events:
        return {}
    start = profile.events[0].start
    end = max(event.start + event.seconds for event in profile.events)
    steps = profile.durations(timeline.STEP)
    rows = {"start": _clock(start), "end": _clock(end), "duration": _seconds(end - start)}
    if steps:
        first, last = steps[0].start, steps[-1].start + steps[-1].seconds
        whole = end - start
        rows |= {
            "training loop, start": _clock(first),
            "training loop, end": _clock(last),
            "training loop": _part(last - first, whole),
            "initialization": _part(first - start, whole),
            "finalization": _part(end - last, whole),
        }
    return rows


def _phases(profile: Profile) -> dict[str, object]:
    seconds = profiler_rules.phase_seconds(profile)
    seconds.pop(timeline.INITIALIZATION, None)
    total = sum(seconds.values())
    if not total:
        return {}
    ordered = dict(sorted(seconds.items(), key=lambda item: -item[1]))
    return {
        "bar": Markup(charts.shares(ordered)),  # noqa: S704 - ours, escaped
        "rows": [(name, value, 100 * value / total) for name, value in ordered.items()],
    }


def _operators(profile: Profile) -> dict[str, object]:
    """Return the operators that take most, of all that several nodes have seen."""
    if not profile.operators:
        return {}
    totals = [sum(each.cpu_us for each in profile.operators)]
    totals += [sum(each.gpu_us for each in profile.operators)]
    return {
        "rows": profile.operators[:MAX_OPERATORS],
        "shares": [
            [100 * own / whole if whole else 0.0 for own, whole in zip(times, totals, strict=True)]
            for times in ((each.cpu_us, each.gpu_us) for each in profile.operators[:MAX_OPERATORS])
        ],
        "has_gpu": totals[1] > 0,
    }


def _steps(profile: Profile) -> dict[str, object]:
    seconds = [event.seconds for event in profile.durations(timeline.STEP)]
    if not seconds:
        return {}
    plot = charts.histogram([1000 * value for value in seconds], across="ms a step")
    return {
        "count": len(seconds),
        "percentiles": {name: 1000 * v for name, v in percentiles(seconds).items()},
        "plot": Markup(plot),  # noqa: S704 - ours, escaped
    }


def _data(profile: Profile) -> dict[str, object]:
    seconds = [event.seconds for event in profile.durations(timeline.DATA)]
    if not seconds:
        return {}
    plot = charts.histogram([1000 * value for value in seconds], across="ms for images")
    return {
        "percentiles": {name: 1000 * v for name, v in percentiles(seconds).items()},
        "plot": Markup(plot),  # noqa: S704 - ours, escaped
    }


def _system_plots(profile: Profile) -> dict[str, Markup]:
    plots = {}
    for title, kind in (
        ("Processors, %", machine_rules.CPU),
        ("Waiting for the disk, %", machine_rules.IO_WAIT),
        ("GPUs, %", machine_rules.GPU),
        ("Memory of GPUs, %", machine_rules.GPU_MEMORY),
    ):
        series = profile.values(*kind)
        if series:
            start = min(float(each[0, 0]) for each in series.values())
            shown = {
                name: [(float(x) - start, float(y)) for x, y in values]
                for name, values in list(series.items())[: len(charts.COLORS)]
            }
            plots[title] = Markup(charts.lines(shown, across="seconds"))  # noqa: S704
    return plots


def _losses(records: Records) -> str:
    spe = records.losses("EVAL")
    training = records.losses(records.training)
    steps = [point.step for point in training]
    series = {"training": [(point.order, point.value) for point in training]}
    series["validation"] = [(point.order, point.value) for point in spe]
    return charts.lines(series, across="records") if steps or spe else ""


def _tensor_plots(records: Records) -> dict[str, Markup]:
    mode = records.training
    kinds: Mapping[str, tuple[str, str]] = {
        "Gradients, mean of absolutes": (GRADIENTS, "abs_mean"),
        "Weights, mean of absolutes": (WEIGHTS, "abs_mean"),
        "Change of the weights in a step, share of their norm": (r"^update_ratio/", "mean"),
        "Inputs of ReLUs, variance": (".*relu_input", "variance"),
    }
    plots = {}
    for title, (pattern, reduction) in kinds.items():
        names = [name for name in records.names(pattern, mode) if not name.endswith(("bias", ".b"))]
        # Evenly from the first layers to the last.
        chosen = names[:: max(1, len(names) // MAX_LINES)][:MAX_LINES]
        series = {name: _line(records.points(name, reduction, mode)) for name in chosen}
        if any(series.values()):
            plot = charts.lines(series, across="step", logarithmic=True)
            plots[f"{title} ({len(chosen)} of {len(names)} tensors)"] = Markup(plot)  # noqa: S704
    return plots


def _line(points: Sequence[Point]) -> list[tuple[float, float]]:
    return [(point.step, point.value) for point in points]


def _row(verdict: Verdict) -> dict[str, object]:
    every = {**RULES, **profiler_rules.RULES}
    description = (every[verdict.rule].__doc__ or "").partition("\n")[0]
    return {
        "verdict": verdict,
        "description": description,
        "parameters": ", ".join(f"{name}={value}" for name, value in verdict.parameters.items()),
    }


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s"


def _part(seconds: float, whole: float) -> str:
    return f"{seconds:.1f} s, {100 * seconds / whole:.1f} %" if whole else "0 s"
