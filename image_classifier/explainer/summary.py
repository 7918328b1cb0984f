"""What all explanations of an analysis say together, as analysis.json."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Self, TextIO

import numpy as np

from image_classifier.explainer.results import Result

VERSION = "1.0"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """An image that is explained."""

    file: str
    """Its path within the images' folder."""

    folder: Path
    """With the result's files."""

    root: Path
    """The analysis's, from which analysis.json names files."""

    result: Result
    class_names: tuple[str, ...]

    @property
    def true(self) -> str | None:
        """The image's class, where the folder that it is in has a class's name."""
        parent = PurePosixPath(self.file).parent.name
        return parent if parent in self.class_names else None

    @property
    def predicted(self) -> str:
        """The class of the highest score."""
        return self.class_names[self.result.explanation.predicted]

    @property
    def is_wrong(self) -> bool:
        """Whether it is known to be named incorrectly."""
        return self.true not in {None, self.predicted}


class Unreadable(NamedTuple):
    """An image that is not explained."""

    file: str
    why: str


@dataclass(slots=True)
class Summary:
    """Figures over all images."""

    class_names: tuple[str, ...] = ()
    images: int = 0
    evaluations: int = 0
    known: int = 0
    """Images whose true class is known."""
    right: int = 0
    deletion: list[float] = field(default_factory=list)
    insertion: list[float] = field(default_factory=list)
    random: list[float] = field(default_factory=list)
    correlations: list[float] = field(default_factory=list)
    absolute_correlations: list[float] = field(default_factory=list)
    unreadable: Sequence[Unreadable] = ()
    _expected: Any = 0.0
    _scores: Any = 0.0

    @classmethod
    def of(cls, finished: Iterable[Finished], unreadable: Sequence[Unreadable]) -> Self:
        """Add up all images."""
        summary = cls(unreadable=unreadable)
        for one in finished:
            summary._add(one)
        return summary

    @property
    def better_deletions(self) -> int:
        """Images whose deletion is better than in random order."""
        pairs = zip(self.deletion, self.random, strict=True)
        return sum(deletion < random for deletion, random in pairs)

    @property
    def better_insertions(self) -> int:
        """Images whose insertion is better than in random order."""
        pairs = zip(self.insertion, self.random, strict=True)
        return sum(insertion > random for insertion, random in pairs)

    def faithfulness(self) -> dict[str, Any]:
        """Return the means of the areas and correlations."""
        return {
            "deletion_area": float(np.mean(self.deletion)),
            "insertion_area": float(np.mean(self.insertion)),
            "random_area": float(np.mean(self.random)),
            "deletion_better_than_random": self.better_deletions,
            "insertion_better_than_random": self.better_insertions,
            "randomized_rank_correlation": _mean(self.correlations),
            "randomized_absolute_rank_correlation": _mean(self.absolute_correlations),
        }

    def labels(self) -> dict[str, dict[str, float]]:
        """Return each class's mean score of the images and of the baseline."""
        expected, scores = self._expected / self.images, self._scores / self.images
        return {
            name: {"expected_value": float(expected[label]), "mean_score": float(scores[label])}
            for label, name in enumerate(self.class_names)
        }

    def _add(self, one: Finished) -> None:
        explanation = one.result.explanation
        self.class_names = one.class_names
        self.images += 1
        self.evaluations += explanation.evaluations
        self.known += one.true is not None
        self.right += one.true == one.predicted
        self.deletion.append(explanation.curves.deletion_area)
        self.insertion.append(explanation.curves.insertion_area)
        self.random.append(explanation.curves.random_area)
        if explanation.sanity is not None:
            self.correlations.append(explanation.sanity.correlation)
            self.absolute_correlations.append(explanation.sanity.absolute_correlation)
        self._expected = self._expected + np.array(explanation.expected)
        self._scores = self._scores + np.array(explanation.scores)


def write(
    file: TextIO, summary: Summary, finished: Iterable[Finished], *, local_values: bool
) -> None:
    """Write analysis.json, one image in memory at a time."""
    head = {
        "version": VERSION,
        "explanations": {"kernel_shap": summary.labels()},
        "faithfulness": summary.faithfulness(),
        "unreadable": [one._asdict() for one in summary.unreadable],
    }
    file.write(json.dumps(head, indent=2).removesuffix("\n}") + ',\n  "images": [')
    for number, one in enumerate(finished):
        file.write(",\n" if number else "\n")
        file.write(json.dumps(_image(one, local_values=local_values)))
    file.write("\n  ]\n}\n")


def _image(one: Finished, *, local_values: bool) -> dict[str, Any]:
    explanation, names = one.result.explanation, one.class_names
    folder = one.folder.relative_to(one.root).as_posix()
    entry = {
        "file": one.file,
        "true_label": one.true,
        "predicted_label": one.predicted,
        "scores": dict(zip(names, explanation.scores, strict=True)),
        "expected_values": dict(zip(names, explanation.expected, strict=True)),
        "segments": len(explanation.shapley),
        "method": explanation.method,
        "evaluations": explanation.evaluations,
        "deletion_area": explanation.curves.deletion_area,
        "insertion_area": explanation.curves.insertion_area,
        "random_area": explanation.curves.random_area,
        "randomized": explanation.sanity and explanation.sanity._asdict(),
        "heat_maps": {
            names[label]: f"{folder}/{file}" for label, file in one.result.heat_maps.items()
        },
    }
    if local_values:
        columns = np.array(explanation.shapley).T.tolist()
        entry["local_shap_values"] = dict(zip(names, columns, strict=True))
    return entry


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
