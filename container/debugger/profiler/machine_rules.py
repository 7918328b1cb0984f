"""AWS's profiler rules on what the machine did: processors, disk, GPUs."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from container.debugger.profiler.reading import Profile
from container.debugger.rules.finding import Finding, Violation

GPU, GPU_MEMORY = ("gpu", "GPUUtilization"), ("gpu", "GPUMemoryUtilization")
CPU, IO_WAIT = ("cpu", "CPUUtilization"), ("cpu", "I/OWaitPercentage")

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
        "decode images once (the cache does), or take a machine with more processors",
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
                    "the GPU waits for images, or the batches are small",
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


def overall_system_usage(profile: Profile) -> Finding:
    """Say what the machine was used for; it finds nothing."""
    count = sum(map(len, profile.metrics.values()))
    return Finding(count, lacks="" if count else "the system's figures")


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


def _violation(tensor: str, value: float, sentence: str, cause: str, remedy: str) -> Violation:
    return Violation(
        step=0, tensor=tensor, value=value, sentence=sentence, cause=cause, remedy=remedy
    )
