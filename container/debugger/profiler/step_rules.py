"""AWS's profiler rules on the durations of steps and their phases."""

from collections.abc import Sequence

import numpy as np

from container.classifier.environment import CACHE_DIR_VARIABLE
from container.debugger.profiler import timeline
from container.debugger.profiler.profile import CPU, Profile
from container.debugger.profiler.timeline import Event
from container.debugger.rules.rule import Finding, Violation, rule

# Smallest fraction of the steps' time that is worth advice.
MIN_FRACTION = 0.1

MIN_STEPS = 20
NO_STEPS = f"{MIN_STEPS} timed steps"


@rule("Dataloader", cause="the disk or the loader is slower than the network")
def dataloader(
    profile: Profile, *, min_threshold: float = 70, max_threshold: float = 200
) -> Finding:
    """Find steps that wait for their images.

    AWS's rule compares the number of loader processes with `min_threshold` and `max_threshold`
    percent of the cores. There are no loader processes here: images are decoded once, and read from
    a cache. The parameters have no effect.
    """
    del min_threshold, max_threshold
    steps = {event.step: event.seconds for event in profile.durations(timeline.STEP)}
    waits = [event for event in profile.durations(timeline.DATA) if event.step in steps]
    if len(waits) < MIN_STEPS:
        return Finding(len(waits), lacks=NO_STEPS)
    ratio = sum(event.seconds for event in waits) / sum(steps.values())
    if ratio <= MIN_FRACTION:
        return Finding(len(waits))
    longest = max(waits, key=lambda event: event.seconds)
    violation = Violation(
        longest.step,
        timeline.DATA,
        ratio,
        f"steps wait for images in {ratio:.0%} of their time; step {longest.step} waited longest, "
        f"{longest.seconds:.3g} s",
        remedy=f"put the cache on a faster disk ({CACHE_DIR_VARIABLE} names its folder); "
        f"without the wait the steps are {1 / (1 - min(ratio, 0.99)):.2f} times as fast",
    )
    return Finding(len(waits), [violation])


@rule(
    "StepOutlier",
    cause="another process uses the machine, or some images are on a slower disk",
    remedy="check the system metrics at these steps",
)
def step_outlier(
    profile: Profile, *, stddev: float = 3, mode: str | None = None, n_outliers: int = 10
) -> Finding:
    """Find steps that took far longer than the others.

    If a step's phases are known, the rule uses their sum, because the rest is our own recording in
    some steps, which would make all these steps outliers. Thousands of steps always have more than
    `n_outliers` outliers, so that these must also take a tenth of the time.
    """
    name = timeline.EVALUATION if str(mode).upper() == "EVAL" else timeline.STEP
    events = profile.durations(name)
    if len(events) < MIN_STEPS:
        return Finding(len(events), lacks=NO_STEPS)
    if name == timeline.STEP:
        events = _without_recording(profile, events)
    seconds = np.array([event.seconds for event in events])
    mean = seconds.mean()
    limit = mean + stddev * seconds.std()
    slow = [event for event in events if event.seconds > limit]
    lost = sum(event.seconds - mean for event in slow)
    if len(slow) <= n_outliers or lost < MIN_FRACTION * seconds.sum():
        return Finding(len(events))
    worst = max(slow, key=lambda event: event.seconds)
    sentence = (
        f"{len(slow)} of {len(events)} steps took more than {limit:.3g} s, {stddev:g} standard "
        f"deviations above the mean of {mean:.3g} s; step {worst.step} took {worst.seconds:.3g} s"
    )
    return Finding(len(events), [Violation(worst.step, name, worst.seconds, sentence)])


@rule(
    "MaxInitializationTime",
    cause="images are decoded, or weights are downloaded",
    remedy="keep the cache between jobs, and provide the weights as a channel",
)
def max_initialization_time(profile: Profile, *, threshold: float = 20) -> Finding:
    """Find a long time before the first step; the threshold is in minutes."""
    steps = profile.durations(timeline.STEP)
    starts = [event.start for event in profile.durations(timeline.INITIALIZATION)]
    starts += [float(series[0, 0]) for series in profile.values(*CPU).values()]
    if not steps or not starts:
        return Finding(0, lacks="a timed step")
    minutes = (steps[0].start - min(starts)) / 60
    if minutes <= threshold:
        return Finding(1)
    sentence = f"the first step started after {minutes:.1f} minutes; the limit is {threshold:g}"
    return Finding(1, [Violation(0, timeline.INITIALIZATION, minutes, sentence)])


@rule("OverallFrameworkMetrics")
def overall_framework_metrics(profile: Profile) -> Finding:
    """Summarize the times of phases; this rule has no violations."""
    return Finding(len(profile.events), lacks="" if profile.events else "timed steps")


def _without_recording(profile: Profile, steps: Sequence[Event]) -> list[Event]:
    """Return the steps with the sum of their phases as seconds, if these are known."""
    sums: dict[int, float] = {}
    for event in profile.events:
        if event.name in timeline.PHASES:
            sums[event.step] = sums.get(event.step, 0.0) + event.seconds
    return [step._replace(seconds=sums.get(step.step, step.seconds)) for step in steps]
