"""Confidence intervals by the percentile bootstrap (Efron 1979)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from container.training.evaluation.evaluation import Counts, Evaluation, wilson

RESAMPLES = 1000

# Numbers per draw: 32 MB.
MAX_DRAWN = 2**22


@dataclass(frozen=True, slots=True)
class Intervals:
    """95 % confidence intervals of an evaluation's metrics."""

    averages: Mapping[str, npt.NDArray[np.float64]]
    """Intervals of the accuracy and of the averages over classes, each of shape (2,)."""

    by_class: Mapping[str, npt.NDArray[np.float64]]
    """Intervals of precision, recall and F1, each of shape (C, 2)."""


def intervals(evaluation: Evaluation, resamples: int = RESAMPLES, seed: int = 0) -> Intervals:
    """Compute the intervals; equal evaluations have equal intervals.

    The accuracy has Wilson's interval. So does a metric that is equal in all resamples: without a
    mistake, or without a correct prediction, the bootstrap's interval would have no width.
    """
    parts = list(_resampled(evaluation.confusion, resamples, np.random.default_rng(seed)))
    averages = _joined([counts.averages() for counts in parts])
    by_class = _joined([_defined_scores(counts) for counts in parts])
    counts, total = evaluation.counts, evaluation.confusion.sum()
    counted = {
        "precision": counts.predicted,
        "recall": counts.actual,
        # F1 is 1 or 0 exactly if the fraction of correct predictions among these is.
        "f1": counts.predicted + counts.actual - counts.right,
    }
    values, scores = counts.averages(), counts.scores()
    if values["recall"] == values["balanced_accuracy"]:
        # A class that a resample lacks, but predicts, has no recall there.
        averages["recall"] = averages["balanced_accuracy"]
    return Intervals(
        averages={
            **{name: _interval(drawn, values[name], total) for name, drawn in averages.items()},
            "accuracy": wilson(values["accuracy"], total),
        },
        by_class={
            name: _interval(drawn, scores[name], counted[name]) for name, drawn in by_class.items()
        },
    )


def _resampled(
    confusion: npt.NDArray[np.int64], resamples: int, random: np.random.Generator
) -> Iterator[Counts]:
    """Draw all images with replacement; yield counts of shape (n, C).

    Only an image's cell of the confusion matrix matters, so this is a multinomial draw.
    """
    rows, columns = np.nonzero(confusion)
    cells = confusion[rows, columns]
    size = max(1, MAX_DRAWN // max(len(cells), len(confusion)))
    for start in range(0, resamples, size):
        drawn = random.multinomial(
            cells.sum(), cells / cells.sum(), size=min(size, resamples - start)
        )
        yield Counts(
            right=_sums(drawn[:, rows == columns], rows[rows == columns], len(confusion)),
            predicted=_sums(drawn, columns, len(confusion)),
            actual=_sums(drawn, rows, len(confusion)),
        )


def _sums(
    drawn: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], num_classes: int
) -> npt.NDArray[np.int64]:
    """Add the columns of `drawn` (n, K) that have the same label (K,); return (n, C)."""
    sums = np.zeros((len(drawn), num_classes), dtype=np.int64)
    if len(labels):
        order = np.argsort(labels, kind="stable")
        found, starts = np.unique(labels[order], return_index=True)
        sums[:, found] = np.add.reduceat(drawn[:, order], starts, axis=1)
    return sums


def _defined_scores(counts: Counts) -> dict[str, npt.NDArray[np.float64]]:
    """Return the scores, NaN for classes without images that define them."""
    is_defined = {
        "precision": counts.predicted > 0,
        "recall": counts.actual > 0,
        "f1": counts.predicted + counts.actual > 0,
    }
    scores = counts.scores()
    return {name: np.where(is_defined[name], scores[name], np.nan) for name in scores}


def _joined(
    parts: list[dict[str, npt.NDArray[np.float64]]],
) -> dict[str, npt.NDArray[np.float64]]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _interval(
    drawn: npt.NDArray[np.float64], value: npt.NDArray[np.float64], n: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return the central 95 % (..., 2) of `drawn` (n, ...), or Wilson's interval if equal."""
    # A class that was never drawn has no value.
    never = np.isnan(drawn).all(axis=0)
    low, high = np.nanquantile(np.where(never, 0.0, drawn), (0.025, 0.975), axis=0)
    found = np.stack([low, high], axis=-1)
    return np.where((low == high)[..., None], wilson(value, n), found)
