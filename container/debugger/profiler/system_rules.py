"""AWS's profiler rules on system metrics: CPU, disk and GPUs."""

from collections.abc import Mapping

import numpy as np

from container.debugger.profiler.profile import CPU, GPU, GPU_MEMORY, IO_WAIT, Profile, Series
from container.debugger.rules.rule import Finding, Violation, rule

NO_GPU = "metrics of a GPU"


@rule(
    "BatchSize",
    cause="the batches are too small for the device",
    remedy="double batch_size until memory is nearly full, and learning_rate with it",
)
def batch_size(
    profile: Profile,
    *,
    cpu_threshold_p95: float = 70,
    gpu_threshold_p95: float = 70,
    gpu_memory_threshold_p95: float = 70,
    patience: int = 1000,
    window: int = 500,
) -> Finding:
    """Find a device that has capacity for larger batches."""
    gpus, memories = profile.values(*GPU), profile.values(*GPU_MEMORY)
    cpus = _mean(profile.values(*CPU))
    if not gpus or not memories or cpus is None:
        return Finding(0, lacks=NO_GPU)
    if len(cpus) < patience:
        return Finding(len(cpus), lacks=f"{patience} samples")
    cpu = _percentile(cpus, 95, window)
    gpu = max(_percentile(series, 95, window) for series in gpus.values())
    memory = max(_percentile(series, 95, window) for series in memories.values())
    is_idle = cpu < cpu_threshold_p95 and gpu < gpu_threshold_p95
    if not (is_idle and memory < gpu_memory_threshold_p95):
        return Finding(len(cpus))
    sentence = (
        f"the 95th percentiles are {cpu:.0f} % of the CPUs, {gpu:.0f} % of the GPUs and "
        f"{memory:.0f} % of GPU memory"
    )
    return Finding(len(cpus), [Violation(0, "GPUMemoryUtilization", memory, sentence)])


@rule(
    "CPUBottleneck",
    cause="the GPUs wait while the CPUs are busy",
    remedy="decode images once (the cache does), or use an instance with more CPUs",
)
def cpu_bottleneck(
    profile: Profile,
    *,
    threshold: float = 50,
    gpu_threshold: float = 10,
    cpu_threshold: float = 90,
    patience: int = 1000,
) -> Finding:
    """Find GPUs that wait for the CPUs."""
    return _bottleneck(
        profile,
        CPU,
        "the CPUs are busy",
        threshold=threshold,
        low=gpu_threshold,
        high=cpu_threshold,
        patience=patience,
    )


@rule(
    "IOBottleneck",
    cause="the GPUs wait while the CPUs wait for the disk",
    remedy="use input_mode=File instead of FastFile, or an instance with a faster disk",
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
        IO_WAIT,
        "the CPUs wait for the disk",
        threshold=threshold,
        low=gpu_threshold,
        high=io_threshold,
        patience=patience,
    )


@rule(
    "LowGPUUtilization",
    cause="the GPU waits for images, or the batches are small",
    remedy="raise batch_size; check the share of DataLoaderIter in a step",
)
def low_gpu_utilization(
    profile: Profile,
    *,
    threshold_p95: float = 70,
    threshold_p5: float = 10,
    window: int = 500,
    patience: int = 1000,
) -> Finding:
    """Find GPUs with low or fluctuating utilization."""
    gpus = profile.values(*GPU)
    points = max(map(len, gpus.values()), default=0)
    if points < patience:
        return Finding(points, lacks=f"{patience} samples" if gpus else NO_GPU)
    violations = []
    for name, series in gpus.items():
        p95, p5 = (_percentile(series, percent, window) for percent in (95, 5))
        if p95 < threshold_p95 or p5 < threshold_p5:
            sentence = f"the 95th percentile is {p95:.0f} %, the 5th {p5:.0f} %"
            violations.append(Violation(0, name, p95, sentence))
    return Finding(points, violations)


@rule(
    "GPUMemoryIncrease",
    cause="tensors of every step are kept",
    remedy="detach losses and outputs that are kept",
)
def gpu_memory_increase(
    profile: Profile, *, increase: float = 5, patience: int = 1000, window: int = 10
) -> Finding:
    """Find GPUs whose memory use grows."""
    memories = profile.values(*GPU_MEMORY)
    points = max(map(len, memories.values()), default=0)
    if points < patience:
        return Finding(points, lacks=f"{patience} samples" if memories else NO_GPU)
    violations = []
    for name, series in memories.items():
        means = np.convolve(series[:, 1], np.ones(window) / window, "valid")
        growth = float(means[-1] - means[len(means) // 2])
        if growth > increase:
            sentence = f"its memory use has grown by {growth:.1f} % in the second half of the run"
            violations.append(Violation(0, name, growth, sentence))
    return Finding(points, violations)


@rule(
    "LoadBalancing",
    cause="one GPU waits for the others",
    remedy="give every GPU the same share of the batch",
)
def load_balancing(profile: Profile, *, threshold: float = 0.5, patience: int = 1000) -> Finding:
    """Find GPUs with unequal load."""
    gpus = profile.values(*GPU)
    points = min(map(len, gpus.values()), default=0)
    if len(gpus) < 2 or points < patience:  # noqa: PLR2004
        return Finding(points, lacks=f"metrics of two GPUs, {patience} of each")
    histograms = {
        name: np.histogram(series[:, 1], 20, (0, 100))[0] / len(series)
        for name, series in gpus.items()
    }
    first, violations = next(iter(histograms)), []
    for name, histogram in histograms.items():
        distance = float(np.abs(histogram - histograms[first]).sum() / 2)
        if distance > threshold:
            sentence = (
                f"its histogram differs from that of {first} by {distance:.2f}; the limit is "
                f"{threshold:g}"
            )
            violations.append(Violation(0, name, distance, sentence))
    return Finding(points, violations)


@rule("OverallSystemUsage")
def overall_system_usage(profile: Profile) -> Finding:
    """Summarize system metrics; this rule has no violations."""
    count = sum(map(len, profile.metrics.values()))
    return Finding(count, lacks="" if count else "system metrics")


def _bottleneck(
    profile: Profile,
    metric: tuple[str, str],
    what: str,
    *,
    threshold: float,
    low: float,
    high: float,
    patience: int,
) -> Finding:
    """Compare with a limit the percentage of samples with idle GPUs and a high load of a metric."""
    gpu, load = _mean(profile.values(*GPU)), _mean(profile.values(*metric))
    if gpu is None or load is None:
        return Finding(0, lacks=NO_GPU)
    points = min(len(gpu), len(load))
    if points < patience:
        return Finding(points, lacks=f"{patience} samples")
    is_blocked = (gpu[:points, 1] < low) & (load[:points, 1] > high)
    idle = float(100 * is_blocked.sum() / points)
    if idle <= threshold:
        return Finding(points)
    sentence = f"in {idle:.0f} % of samples {what} (above {high:g} %) and GPUs are below {low:g} %"
    return Finding(points, [Violation(0, "GPUUtilization", idle, sentence)])


def _mean(series: Mapping[str, Series]) -> Series | None:
    """Return the mean of series that were sampled together, or None without series."""
    if not series:
        return None
    count = min(map(len, series.values()))
    mean: Series = np.mean([samples[:count] for samples in series.values()], axis=0)
    return mean


def _percentile(series: Series, percent: float, window: int) -> float:
    return float(np.percentile(series[-window:, 1], percent))
