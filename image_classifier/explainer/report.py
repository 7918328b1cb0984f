"""The report of an analysis: one self-contained HTML page."""

import base64
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from image_classifier.explainer.analysis import Analysis
from image_classifier.explainer.heat_map import encode_jpeg
from image_classifier.explainer.results import IMAGE, OUTLINES, Result
from image_classifier.explainer.summary import Summary

TEMPLATE = "report.html.jinja"

# In pixels; twice the displayed size, for high-resolution screens.
THUMBNAIL_SIZE = 400

# A page with more would be slow; the results of the others are in their folders.
MAX_IMAGES = 200

MAX_CLASSES = 4

# If the predicted class's score exceeds the baseline's by less, there is little to explain.
MIN_GAIN = 0.1

# Size of the plot of an image's curves, in SVG units.
PLOT_WIDTH, PLOT_HEIGHT = 240, 120


def write(
    file: TextIO,
    analysis: Analysis,
    summary: Summary,
    results: Iterable[Result],
    endpoint: str,
) -> None:
    """Write the page, with one result in memory at a time."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        # Names of classes and files are untrusted.
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: f"{100 * share:.1f}"
    parts = environment.get_template(TEMPLATE).generate(
        analysis=analysis,
        summary=summary,
        faithfulness=summary.faithfulness(),
        images=_images(itertools.islice(results, MAX_IMAGES)),
        max_images=MAX_IMAGES,
        min_gain=MIN_GAIN,
        endpoint=endpoint,
        width=PLOT_WIDTH,
        height=PLOT_HEIGHT,
    )
    file.writelines(parts)


def _images(results: Iterable[Result]) -> Iterator[dict[str, Any]]:
    for result in results:
        explanation = result.explanation
        curves = explanation.curves
        labels = itertools.islice(result.heat_maps.items(), MAX_CLASSES)
        yield {
            "file": result.file,
            "true": result.true,
            "predicted": result.predicted,
            "is_wrong": result.is_wrong,
            "explanation": explanation,
            "gain": explanation.scores[explanation.predicted]
            - explanation.expected[explanation.predicted],
            "image": _thumbnail(result.folder / IMAGE),
            "outlines": _thumbnail(result.folder / OUTLINES),
            "heat_maps": [
                {
                    "class_name": result.class_names[label],
                    "score": explanation.scores[label],
                    "expected": explanation.expected[label],
                    "image": _thumbnail(result.folder / name),
                }
                for label, name in labels
            ],
            "lines": {
                "deletion": _points(curves.deletion),
                "insertion": _points(curves.insertion),
                "random": _points(curves.random),
            },
        }


def _thumbnail(path: Path) -> str:
    pixels = np.asarray(Image.open(path).convert("RGB"))
    data = encode_jpeg(pixels, THUMBNAIL_SIZE)
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


def _points(curve: tuple[float, ...]) -> str:
    """Return a curve of probabilities as the points of an SVG polyline."""
    steps = len(curve) - 1
    points = (
        (PLOT_WIDTH * step / steps, PLOT_HEIGHT * (1 - value)) for step, value in enumerate(curve)
    )
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
