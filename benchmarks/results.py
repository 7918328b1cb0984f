"""Results in a file that a later start continues, and means with 95 % intervals."""

import dataclasses
import json
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from container.classifier.labeled_images import LabeledFile

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# Of Student's t distribution, two-sided, at n - 1 degrees of freedom.
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}


RunT = TypeVar("RunT", bound="DataclassInstance")


def continued(
    path: Path, runs: Iterable[RunT], measure: Callable[[RunT], Mapping[str, object]]
) -> list[dict[str, Any]]:
    """Measure the runs that a file of JSON Lines lacks, and append them; return all its results."""
    for run in runs:
        description = dataclasses.asdict(run)
        # Earlier results may lack later fields.
        defaults = {field.name: field.default for field in dataclasses.fields(run)}
        if description in [defaults | result["run"] for result in read(path)]:
            continue
        line = json.dumps({"run": description, **measure(run)})
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, file=sys.stderr, flush=True)
    return read(path)


def read(path: Path) -> list[dict[str, Any]]:
    """Return the results of a file, none if it does not exist."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def drawn(files: Sequence[LabeledFile], count: int, seed: int) -> list[LabeledFile]:
    """Draw images, the same share of each class; all if there are fewer."""
    if len(files) <= count:
        return list(files)
    random = np.random.default_rng(seed)
    by_class: dict[str, list[LabeledFile]] = defaultdict(list)
    for index in random.permutation(len(files)):
        by_class[files[index].class_name].append(files[index])
    return [
        file
        for name in sorted(by_class)
        for file in by_class[name][: max(1, round(count * len(by_class[name]) / len(files)))]
    ]


def points(values: Sequence[float]) -> str:
    """Return the mean of fractions and half its 95 % interval, in percentage points."""
    n = len(values)
    if n == 0:
        return ""
    mean = 100 * statistics.mean(values)
    if n == 1:
        return f"{mean:+.1f}"
    return f"{mean:+.1f} +- {100 * T_95[n] * statistics.stdev(values) / math.sqrt(n):.1f}"
