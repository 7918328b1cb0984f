"""The results of an analysis: analysis.json, and a self-contained HTML page."""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TextIO

import numpy as np
from PIL import Image

from container.classifier.report_page import data_uri, template
from image_classifier.explainer.analysis import Analysis
from image_classifier.explainer.explanation import Sanity
from image_classifier.explainer.image import encode_jpeg
from image_classifier.explainer.results import IMAGE, OUTLINES, Result

# Version of the format of analysis.json.
VERSION = "1.0"

TEMPLATE = Path(__file__).with_name("report.html.jinja")

# In pixels; twice the displayed size, for high-resolution screens.
THUMBNAIL_SIZE = 400

# A page with more would be slow; the results of the others are in their folders.
MAX_IMAGES = 200

MAX_CLASSES = 4

# If the predicted class's score exceeds the baseline's by less, there is little to explain.
MIN_GAIN = 0.1

# Size of the plot of an image's curves, in SVG units.
PLOT_WIDTH, PLOT_HEIGHT = 240, 120


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
    def counted(self) -> str:
        """Number of images, in words."""
        return "1 image" if self.images == 1 else f"{self.images} images"

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

    def write_json(self, file: TextIO, results: Iterable[Result], *, local_values: bool) -> None:
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


def write_page(
    file: TextIO,
    analysis: Analysis,
    summary: Summary,
    results: Iterable[Result],
    *,
    endpoint: str,
    data: str,
) -> None:
    """Write the HTML page, with one result in memory at a time; `data` is the images' folder."""
    parts = template(TEMPLATE, thumbnail=_thumbnail, points=_points).generate(
        facts={"Endpoint": endpoint, "Data": data},
        analysis=analysis,
        summary=summary,
        faithfulness=summary.faithfulness(),
        results=itertools.islice(results, MAX_IMAGES),
        image_file=IMAGE,
        outlines_file=OUTLINES,
        max_images=MAX_IMAGES,
        max_classes=MAX_CLASSES,
        min_gain=MIN_GAIN,
        endpoint=endpoint,
        width=PLOT_WIDTH,
        height=PLOT_HEIGHT,
    )
    file.writelines(parts)


def _thumbnail(path: Path) -> str:
    """Return the data URI of a small copy of an image."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    return data_uri(encode_jpeg(pixels, THUMBNAIL_SIZE), "jpeg")


def _points(curve: tuple[float, ...]) -> str:
    """Return a curve of probabilities as the points of an SVG polyline."""
    steps = len(curve) - 1
    points = (
        (PLOT_WIDTH * step / steps, PLOT_HEIGHT * (1 - value)) for step, value in enumerate(curve)
    )
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
