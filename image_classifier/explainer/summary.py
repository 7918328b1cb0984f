"""Means over all explanations of an analysis, and analysis.json."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TextIO

import numpy as np

from image_classifier.explainer.explanation import Sanity
from image_classifier.explainer.results import Result

VERSION = "1.0"


@dataclass(slots=True)
class Summary:
    """Sums over all images."""

    unreadable: Mapping[str, str]
    """Images that are not explained, with the reasons."""
    class_names: tuple[str, ...] = ()
    images: int = 0
    evaluations: int = 0
    labeled: int = 0
    """Images whose true class is known."""
    correct: int = 0
    deletion: list[float] = field(default_factory=list)
    insertion: list[float] = field(default_factory=list)
    random: list[float] = field(default_factory=list)
    sanity: list[Sanity] = field(default_factory=list)
    _expected: Any = 0.0
    _scores: Any = 0.0

    @classmethod
    def of(cls, results: Iterable[Result], unreadable: Mapping[str, str]) -> Self:
        """Add up all results."""
        summary = cls(unreadable)
        for result in results:
            explanation, curves = result.explanation, result.explanation.curves
            summary.class_names = result.class_names
            summary.images += 1
            summary.evaluations += explanation.evaluations
            summary.labeled += result.true is not None
            summary.correct += result.true == result.predicted
            summary.deletion.append(curves.deletion_area)
            summary.insertion.append(curves.insertion_area)
            summary.random.append(curves.random_area)
            if explanation.sanity is not None:
                summary.sanity.append(explanation.sanity)
            summary._expected = summary._expected + np.array(explanation.expected)
            summary._scores = summary._scores + np.array(explanation.scores)
        return summary

    @property
    def better_deletions(self) -> int:
        """Number of images whose deletion is better than in random order."""
        return sum(d < r for d, r in zip(self.deletion, self.random, strict=True))

    def faithfulness(self) -> dict[str, Any]:
        """Return the means of the areas and correlations."""
        better_insertions = sum(i > r for i, r in zip(self.insertion, self.random, strict=True))
        absolute = _mean([sanity.absolute_correlation for sanity in self.sanity])
        return {
            "deletion_area": _mean(self.deletion),
            "insertion_area": _mean(self.insertion),
            "random_area": _mean(self.random),
            "deletion_better_than_random": self.better_deletions,
            "insertion_better_than_random": better_insertions,
            "randomized_rank_correlation": _mean([sanity.correlation for sanity in self.sanity]),
            "randomized_absolute_rank_correlation": absolute,
        }

    def labels(self) -> dict[str, dict[str, float]]:
        """Return each class's mean score of the images and of the baseline."""
        expected, scores = self._expected / self.images, self._scores / self.images
        return {
            name: {"expected_value": float(expected[label]), "mean_score": float(scores[label])}
            for label, name in enumerate(self.class_names)
        }

    def write(self, file: TextIO, results: Iterable[Result], *, local_values: bool) -> None:
        """Write analysis.json, with one result in memory at a time."""
        head = {
            "version": VERSION,
            "explanations": {"kernel_shap": self.labels()},
            "faithfulness": self.faithfulness(),
            "unreadable": [{"file": file, "why": why} for file, why in self.unreadable.items()],
        }
        file.write(json.dumps(head, indent=2).removesuffix("\n}") + ',\n  "images": [')
        for number, result in enumerate(results):
            file.write(",\n" if number else "\n")
            file.write(json.dumps(result.to_json(local_values=local_values)))
        file.write("\n  ]\n}\n")


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
