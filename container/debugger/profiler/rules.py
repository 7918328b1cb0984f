"""AWS's profiler rules by name, on what the machine did and how long phases took."""

import inspect
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from debugger.profiler import timeline
from debugger.profiler.reading import Profile, percentiles
from debugger.rules.finding import Finding, Violation
from debugger.rules.verdict import INSUFFICIENT, ISSUES, NO_ISSUES, Verdict

GPU, GPU_MEMORY = ("gpu", "GPUUtilization"), ("gpu", "GPUMemoryUtilization")
CPU, IO_WAIT = ("cpu", "CPUUtilization"), ("cpu", "I/OWaitPercentage")

# Of the time of a step that pictures may take to come, and no advice is worth giving below.
WORTH = 0.1

Series = npt.NDArray[np.float64]
"""Times and values, of shape (N, 2)."""


def batch_size(
    profile: Profile,
    *,
    cpu_threshold_p95: float = 70,
    gpu_threshold_p95: float = 70,
    gpu_memory_threshold_p95: float = 70,
    patience: int = 1000,
    window: int = 500,
) -> Finding:
    """Find a device that could take larger batches."""
    gpus, memories = profile.values(*GPU), profile.values(*GPU_MEMORY)
    processors = _mean_of(profile.values(*CPU))
    if not gpus or not memories or processors is None:
        return Finding(0, lacks="a GPU's figures")
    points = len(processors)
    if points < patience:
        return Finding(points, lacks=f"{patience} samples")
    cpu = _p95(processors, window)
    worst = max(_p95(series, window) for series in gpus.values())
    memory = max(_p95(series, window) for series in memories.values())
    is_idle = cpu < cpu_threshold_p95 and worst < gpu_threshold_p95
    if not (is_idle and memory < gpu_memory_threshold_p95):
        return Finding(points)
    violation = _violation(
        "GPUMemoryUtilization",
        memory,
        f"95 % of the time processors are below {cpu:.0f} %, GPUs below {worst:.0f} % and their "
        f"memory below {memory:.0f} %",
        "the batches are too small for the device",
        "double batch_size until memory is nearly full, and learning_rate with it",
    )
    return Finding(points, [violation])


def cpu_bottleneck(
    profile: Profile,
    *,
    threshold: float = 50,
    gpu_threshold: float = 10,
    cpu_threshold: float = 90,
    patience: int = 1000,
) -> Finding:
    """Find GPUs that wait for the processors."""
    return _bottleneck(
        profile,
        _mean_of(profile.values(*CPU)),
        (cpu_threshold, gpu_threshold, threshold, patience),
        "processors are busy",
        "decode pictures once (the cache does), or take a machine with more processors",
    )


def io_bottleneck(
    profile: Profile,
    *,
    threshold: float = 50,
    gpu_threshold: float = 10,
    io_threshold: float = 50,
    patience: int = 1000,
) -> Finding:
    """Find GPUs that wait for the disk."""
    return _bottleneck(
        profile,
        _mean_of(profile.values(*IO_WAIT)),
        (io_threshold, gpu_threshold, threshold, patience),
        "processors wait for the disk",
        "take input_mode=File instead of FastFile, or a machine with a faster disk",
    )


def low_gpu_utilization(
    profile: Profile,
    *,
    threshold_p95: float = 70,
    threshold_p5: float = 10,
    window: int = 500,
    patience: int = 1000,
) -> Finding:
    """Find GPUs that are idle, or idle every now and then."""
    gpus = profile.values(*GPU)
    points = max((len(series) for series in gpus.values()), default=0)
    if points < patience:
        return Finding(points, lacks=f"{patience} samples" if gpus else "a GPU's figures")
    violations = []
    for name, series in gpus.items():
        values = series[-window:, 1]
        p95, p5 = np.percentile(values, 95), np.percentile(values, 5)
        if p95 < threshold_p95 or p5 < threshold_p5:
            violations.append(
                _violation(
                    name,
                    float(p95),
                    f"95 % of the time it is below {p95:.0f} %, 5 % of it below {p5:.0f} %",
                    "the GPU waits for pictures, or the batches are small",
                    "raise batch_size; look at how much of a step DataLoaderIter takes",
                )
            )
    return Finding(points, violations)


def gpu_memory_increase(
    profile: Profile, *, increase: float = 5, patience: int = 1000, window: int = 10
) -> Finding:
    """Find a GPU whose memory fills."""
    memories = profile.values(*GPU_MEMORY)
    points = max((len(series) for series in memories.values()), default=0)
    if points < patience:
        return Finding(points, lacks=f"{patience} samples" if memories else "a GPU's figures")
    violations = []
    for name, series in memories.items():
        means = np.convolve(series[:, 1], np.ones(window) / window, "valid")
        grown = float(means[-1] - means[len(means) // 2])
        if grown > increase:
            violations.append(
                _violation(
                    name,
                    grown,
                    f"in the second half of the run its memory has grown by {grown:.1f} %",
                    "something is kept of every step",
                    "detach what is kept of losses and outputs",
                )
            )
    return Finding(points, violations)


def load_balancing(profile: Profile, *, threshold: float = 0.5, patience: int = 1000) -> Finding:
    """Find GPUs that have unequal work."""
    gpus = list(profile.values(*GPU).items())
    points = min((len(series) for _, series in gpus), default=0)
    if len(gpus) < 2 or points < patience:  # noqa: PLR2004
        return Finding(points, lacks=f"two GPUs' figures, {patience} of each")
    shares = [np.histogram(series[:, 1], 20, (0, 100))[0] / len(series) for _, series in gpus]
    violations = [
        _violation(
            name,
            float(np.abs(share - shares[0]).sum() / 2),
            f"{np.abs(share - shares[0]).sum() / 2:.2f} of its time is spent otherwise than "
            f"{gpus[0][0]}'s; {threshold:g} may be",
            "one GPU waits for the others",
            "give every GPU the same share of the batch",
        )
        for (name, _), share in zip(gpus[1:], shares[1:], strict=True)
        if np.abs(share - shares[0]).sum() / 2 > threshold
    ]
    return Finding(points, violations)


def dataloader(
    profile: Profile, *, min_threshold: float = 70, max_threshold: float = 200
) -> Finding:
    """Find steps that wait for their pictures.

    There are no loader processes whose number `min_threshold` and `max_threshold` could be shares
    of the cores of, as AWS's rule has them: pictures are decoded once, and read from a cache.
    """
    del min_threshold, max_threshold
    steps = {event.step: event.seconds for event in profile.durations(timeline.STEP)}
    waits = [(e, steps[e.step]) for e in profile.durations(timeline.DATA) if e.step in steps]
    if len(waits) < MIN_STEPS:
        return Finding(len(waits), lacks=f"{MIN_STEPS} timed steps")
    waited, total = sum(event.seconds for event, _ in waits), sum(steps.values())
    share = waited / total
    if share <= WORTH:
        return Finding(len(waits))
    event = max((event for event, _ in waits), key=lambda event: event.seconds)
    violation = _violation(
        timeline.DATA,
        share,
        f"{share:.0%} of the steps' time goes by until the pictures are there; step {event.step} "
        f"waited longest, {event.seconds:.3g} s",
        "the disk or the loader is slower than the network",
        f"put the cache on a faster disk (SAGEMAKER_CLASSIFIER_CACHE); without the wait the "
        f"training is {1 / (1 - min(share, 0.99)):.2f} times as fast",
        step=event.step,
    )
    return Finding(len(waits), [violation])


def step_outlier(
    profile: Profile, *, stddev: float = 3, mode: str | None = None, n_outliers: int = 10
) -> Finding:
    """Find steps that took far longer than the others."""
    name = timeline.EVALUATION if str(mode).upper() == "EVAL" else timeline.STEP
    events = profile.durations(name)
    if len(events) < MIN_STEPS:
        return Finding(len(events), lacks=f"{MIN_STEPS} timed steps")
    seconds = np.array([event.seconds for event in events])
    limit = seconds.mean() + stddev * seconds.std()
    slow = [event for event in events if event.seconds > limit]
    if len(slow) <= n_outliers:
        return Finding(len(events))
    worst = max(slow, key=lambda event: event.seconds)
    violation = _violation(
        name,
        worst.seconds,
        f"{len(slow)} of {len(events)} steps took more than {limit:.3g} s, {stddev:g} deviations "
        f"above the mean of {seconds.mean():.3g} s; step {worst.step} took {worst.seconds:.3g} s",
        "something else uses the machine, or some pictures come from a slower place",
        "look at the system's figures at these steps",
        step=worst.step,
    )
    return Finding(len(events), [violation])


def max_initialization_time(profile: Profile, *, threshold: float = 20) -> Finding:
    """Find a long time, in minutes, before the first step."""
    steps = profile.durations(timeline.STEP)
    begun = [event.start for event in profile.durations(timeline.INITIALIZATION)]
    begun += [float(series[0, 0]) for series in profile.values(*CPU).values()]
    if not steps or not begun:
        return Finding(0, lacks="a timed step")
    minutes = (steps[0].start - min(begun)) / 60
    if minutes <= threshold:
        return Finding(1)
    violation = _violation(
        timeline.INITIALIZATION,
        minutes,
        f"the first step came after {minutes:.1f} minutes; {threshold:g} may be",
        "pictures are decoded, or weights are downloaded",
        "keep the cache between jobs, and give the weights as a channel",
    )
    return Finding(1, [violation])


def overall_system_usage(profile: Profile) -> Finding:
    """Say what the machine was used for; it finds nothing."""
    count = sum(map(len, profile.metrics.values()))
    return Finding(count, lacks="" if count else "the system's figures")


def overall_framework_metrics(profile: Profile) -> Finding:
    """Say where the time went; it finds nothing."""
    return Finding(len(profile.events), lacks="" if profile.events else "timed steps")


MIN_STEPS = 20

RULES: Mapping[str, Callable[..., Finding]] = {
    "BatchSize": batch_size,
    "CPUBottleneck": cpu_bottleneck,
    "IOBottleneck": io_bottleneck,
    "LowGPUUtilization": low_gpu_utilization,
    "GPUMemoryIncrease": gpu_memory_increase,
    "LoadBalancing": load_balancing,
    "Dataloader": dataloader,
    "StepOutlier": step_outlier,
    "MaxInitializationTime": max_initialization_time,
    "OverallSystemUsage": overall_system_usage,
    "OverallFrameworkMetrics": overall_framework_metrics,
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


def _bottleneck(
    profile: Profile,
    busy: Series | None,
    limits: tuple[float, float, float, int],
    what: str,
    remedy: str,
) -> Finding:
    """Judge in how much of the GPUs' idle time something else is above its limit."""
    high, low, threshold, patience = limits
    gpu = _mean_of(profile.values(*GPU))
    if gpu is None or busy is None:
        return Finding(0, lacks="a GPU's figures")
    points = min(len(gpu), len(busy))
    if points < patience:
        return Finding(points, lacks=f"{patience} samples")
    idle = gpu[:points, 1] < low
    blamed = idle & (busy[:points, 1] > high)
    share = 100 * blamed.sum() / points
    if share <= threshold:
        return Finding(points)
    sentence = (
        f"for {share:.0f} % of the time {what} (above {high:g} %) and GPUs are below {low:g} %"
    )
    cause = f"the GPUs wait while {what}"
    return Finding(points, [_violation("GPUUtilization", float(share), sentence, cause, remedy)])


def _mean_of(series: Mapping[str, Series]) -> Series | None:
    """Return the mean of several series that were sampled together."""
    if not series:
        return None
    count = min(map(len, series.values()))
    mean: Series = np.mean([each[:count] for each in series.values()], axis=0)
    return mean


def _p95(series: Series, window: int) -> float:
    return float(np.percentile(series[-window:, 1], 95))


def _violation(
    tensor: str, value: float, sentence: str, cause: str, remedy: str, *, step: int = 0
) -> Violation:
    return Violation(
        step=step, tensor=tensor, value=value, sentence=sentence, cause=cause, remedy=remedy
    )
