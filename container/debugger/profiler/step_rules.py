"""AWS's profiler rules on how long steps and their phases took."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from container.debugger.profiler import timeline
from container.debugger.profiler.machine_rules import CPU
from container.debugger.profiler.reading import Event, Profile
from container.debugger.rules.finding import Finding, Violation

# Of the steps' time: no advice is worth giving on less.
WORTH = 0.1

MIN_STEPS = 20


def dataloader(
    profile: Profile, *, min_threshold: float = 70, max_threshold: float = 200
) -> Finding:
    """Find steps that wait for their images.

    There are no loader processes whose number `min_threshold` and `max_threshold` could be shares
    of the cores of, as AWS's rule has them: images are decoded once, and read from a cache.
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
    violation = Violation(
        step=event.step,
        tensor=timeline.DATA,
        value=share,
        sentence=f"{share:.0%} of the steps' time goes by until the images are there; "
        f"step {event.step} waited longest, {event.seconds:.3g} s",
        cause="the disk or the loader is slower than the network",
        remedy="put the cache on a faster disk (SAGEMAKER_CLASSIFIER_CACHE_DIR names its folder); "
        f"without the wait the steps are {1 / (1 - min(share, 0.99)):.2f} times as fast",
    )
    return Finding(len(waits), [violation])


def step_outlier(
    profile: Profile, *, stddev: float = 3, mode: str | None = None, n_outliers: int = 10
) -> Finding:
    """Find steps that took far longer than the others.

    Where a step's phases are known, their sum counts: what lies between them is our own recording
    of every so many steps, which would make all these outliers. Of thousands of steps more than
    `n_outliers` always lie that far out; they must also cost a tenth of the time.
    """
    name = timeline.EVALUATION if str(mode).upper() == "EVAL" else timeline.STEP
    events = profile.durations(name)
    if len(events) < MIN_STEPS:
        return Finding(len(events), lacks=f"{MIN_STEPS} timed steps")
    if name == timeline.STEP:
        events = _without_recording(profile, events)
    seconds = np.array([event.seconds for event in events])
    limit = seconds.mean() + stddev * seconds.std()
    slow = [event for event in events if event.seconds > limit]
    lost = sum(event.seconds - seconds.mean() for event in slow)
    if len(slow) <= n_outliers or lost < WORTH * seconds.sum():
        return Finding(len(events))
    worst = max(slow, key=lambda event: event.seconds)
    violation = Violation(
        step=worst.step,
        tensor=name,
        value=worst.seconds,
        sentence=f"{len(slow)} of {len(events)} steps took more than {limit:.3g} s, {stddev:g} "
        f"deviations above the mean of {seconds.mean():.3g} s; step {worst.step} took "
        f"{worst.seconds:.3g} s",
        cause="something else uses the machine, or some images come from a slower place",
        remedy="look at the system's figures at these steps",
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
    violation = Violation(
        step=0,
        tensor=timeline.INITIALIZATION,
        value=minutes,
        sentence=f"the first step came after {minutes:.1f} minutes; {threshold:g} may be",
        cause="images are decoded, or weights are downloaded",
        remedy="keep the cache between jobs, and give the weights as a channel",
    )
    return Finding(1, [violation])


def overall_framework_metrics(profile: Profile) -> Finding:
    """Say where the time went; it finds nothing."""
    return Finding(len(profile.events), lacks="" if profile.events else "timed steps")


def _without_recording(profile: Profile, steps: Sequence[Event]) -> list[Event]:
    """Return the steps with the sums of their phases as seconds, where these are known."""
    sums: dict[int, float] = {}
    for event in profile.events:
        if event.name in timeline.PHASES:
            sums[event.step] = sums.get(event.step, 0.0) + event.seconds
    return [replace(step, seconds=sums.get(step.step, step.seconds)) for step in steps]
