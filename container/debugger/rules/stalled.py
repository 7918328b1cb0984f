"""The rule on the time between records."""

import itertools

from container.debugger.reading.records import Records
from container.debugger.rules.rule import Finding, Violation, rule


@rule(
    "StalledTraining",
    cause="the training waited for the loader, the disk or another process of the job",
    remedy="check disk, network and CPU at that time in the system metrics",
)
def stalled_training(
    records: Records, *, threshold: float = 1800.0, stop_training_on_fire: bool = False
) -> Finding:
    """Find long intervals in which nothing was recorded.

    Args:
        records: of a training.
        threshold: seconds between two records.
        stop_training_on_fire: has no effect; the selection's `stoptraining` action stops a job.
    """
    del stop_training_on_fire
    violations = [
        Violation(
            step,
            "all",
            after - before,
            f"nothing was recorded for {after - before:.4g} seconds before step {step}; "
            f"the limit is {threshold:g}",
        )
        for (_, before), (step, after) in itertools.pairwise(records.times)
        if after - before > threshold
    ]
    count = len(records.times)
    return Finding(count, violations, lacks="" if count > 1 else "two records")
