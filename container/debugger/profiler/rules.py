"""AWS's profiler rules by name, and what a profile comes to."""

import inspect
from collections.abc import Callable, Mapping

from container.debugger.profiler import machine_rules, step_rules, timeline
from container.debugger.profiler.machine_rules import CPU, GPU, GPU_MEMORY, IO_WAIT
from container.debugger.profiler.reading import Profile, percentiles
from container.debugger.rules.finding import Finding
from container.debugger.rules.verdict import INSUFFICIENT, ISSUES, NO_ISSUES, Verdict

RULES: Mapping[str, Callable[..., Finding]] = {
    "BatchSize": machine_rules.batch_size,
    "CPUBottleneck": machine_rules.cpu_bottleneck,
    "IOBottleneck": machine_rules.io_bottleneck,
    "LowGPUUtilization": machine_rules.low_gpu_utilization,
    "GPUMemoryIncrease": machine_rules.gpu_memory_increase,
    "LoadBalancing": machine_rules.load_balancing,
    "Dataloader": step_rules.dataloader,
    "StepOutlier": step_rules.step_outlier,
    "MaxInitializationTime": step_rules.max_initialization_time,
    "OverallSystemUsage": machine_rules.overall_system_usage,
    "OverallFrameworkMetrics": step_rules.overall_framework_metrics,
}


def judge_all(profile: Profile) -> list[Verdict]:
    """Return every profiler rule's verdict, by its defaults."""
    verdicts = []
    for name, rule in RULES.items():
        finding = rule(profile)
        status = INSUFFICIENT if finding.lacks else NO_ISSUES
        if finding.violations:
            status = ISSUES
        signature = inspect.signature(rule).parameters.items()
        used = {key: own.default for key, own in signature if key != "profile"}
        verdicts.append(Verdict(rule=name, status=status, finding=finding, parameters=used))
    return verdicts


def system_usage(profile: Profile) -> dict[str, dict[str, float]]:
    """Return percentiles of every figure of the machine, processors and GPUs together by node."""
    gathered: dict[str, list[float]] = {}
    names = {
        CPU: "CPU, %",
        IO_WAIT: "I/O wait, %",
        GPU: "GPU, %",
        GPU_MEMORY: "GPU memory, %",
    }
    for (node, kind, name, dimension), series in profile.metrics.items():
        shown = names.get((kind, dimension), f"{name}, {'%' if kind == 'memory' else '1/s'}")
        gathered.setdefault(f"{node}: {shown}", []).extend(value for _, value in series)
    return {name: percentiles(values) for name, values in gathered.items()}


def phase_seconds(profile: Profile) -> dict[str, float]:
    """Return the seconds of every phase; what a step spends between them is called `other`."""
    totals: dict[str, float] = {}
    for event in profile.events:
        totals[event.name] = totals.get(event.name, 0.0) + event.seconds
    step = totals.pop(timeline.STEP, 0.0)
    inside = sum(totals.get(name, 0.0) for name in timeline.PHASES)
    if step > inside:
        totals["other"] = step - inside
    return totals
