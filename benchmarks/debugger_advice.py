"""Speedup from the debugger's first advice, on a run that waits for its loader.

    OMP_NUM_THREADS=1 python -m benchmarks.debugger_advice --data FOLDER

The small network trains on several hundred images at 32 pixels, and every batch is delayed, as by a
slow disk. The report's first advice must be to put the cache on a faster disk, with the speedup of
the steps. The same run without delay shows the true speedup. Both runs alternate, because other
processes may use the machine. The profiler times the steps, including recording.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.conditions import conditions
from benchmarks.debugger_faults import Case, load, run
from container.classifier.errors import UserError
from container.debugger import sources
from container.debugger.profiler import rules, timeline
from container.debugger.profiler.profile import Profile
from container.training.data.images import ImageSet

ADVICE = "Dataloader"

STARVED = Case(settings={"epochs": 3}, waits=True)
FED = Case(settings={"epochs": 3})


def turns(
    training: ImageSet, validation: ImageSet, rounds: int
) -> Iterator[Mapping[str, float | str]]:
    """Yield the first advice, the advised and the true speedup of each round."""
    for _ in range(rounds):
        first, starved = _profile(STARVED, training, validation)
        _, fed = _profile(FED, training, validation)
        (verdict,) = [each for each in rules.evaluate_all(starved) if each.rule == ADVICE]
        waited = verdict.worst.value if verdict.worst else 0.0
        promised = 1 / (1 - waited)
        true = _mean_step(starved) / _mean_step(fed)
        yield {"first": first, "promised": promised, "true": true, "ratio": true / promised}


def _profile(case: Case, training: ImageSet, validation: ImageSet) -> tuple[str, Profile]:
    with tempfile.TemporaryDirectory() as directory:
        result = run(case, training, validation, Path(directory))
        profile = sources.read_profile(Path(directory))
        if profile is None:
            raise UserError("the run has left no profile")
        return result.first, profile


def _mean_step(profile: Profile) -> float:
    return statistics.mean(event.seconds for event in profile.durations(timeline.STEP))


def main() -> None:
    """Measure, print each turn and one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of labeled images")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    arguments = parser.parse_args()
    results = []
    for turn in turns(*load(arguments.data), arguments.rounds):
        results.append(turn)
        numbers = "  ".join(f"{name} {turn[name]:.2f}" for name in ("promised", "true", "ratio"))
        print(f"first advice {turn['first'] or 'none'}  {numbers}", flush=True)
    middle = statistics.median(float(turn["ratio"]) for turn in results)
    is_kept = all(turn["first"] == ADVICE for turn in results) and abs(middle - 1) <= 0.25  # noqa: PLR2004
    print(f"promise {'kept' if is_kept else 'BROKEN'}: {middle:.2f} of it, n={len(results)}")
    document = {"median_ratio": middle, "turns": results, "conditions": conditions(["torch"])}
    print(json.dumps(document))


if __name__ == "__main__":
    main()
