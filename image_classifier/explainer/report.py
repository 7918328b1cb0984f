"""The report of an analysis: one page that needs no other file and asks no server for anything."""

import base64
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from image_classifier.explainer import heat_map
from image_classifier.explainer.analysis import Analysis
from image_classifier.explainer.results import IMAGE, OUTLINES
from image_classifier.explainer.summary import Finished, Summary

TEMPLATE = "report.html.jinja"

# In pixels; twice what the page shows, for sharp screens.
THUMBNAIL_SIZE = 400

# A page of more would be slow; all others are in their folders.
MAX_IMAGES = 200

MAX_CLASSES = 4

# Of a probability: less than this more than the baseline's is hardly anything to share out.
LEAST_GAIN = 0.1

# Of the plot of an image's curves, in its own units.
PLOT_WIDTH, PLOT_HEIGHT = 240, 120


def write(
    file: TextIO,
    analysis: Analysis,
    summary: Summary,
    finished: Iterable[Finished],
    endpoint: str,
) -> None:
    """Write the page, one image in memory at a time."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        # Names of classes and files are anybody's.
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
        images=_images(itertools.islice(finished, MAX_IMAGES)),
        max_images=MAX_IMAGES,
        least_gain=LEAST_GAIN,
        endpoint=endpoint,
        width=PLOT_WIDTH,
        height=PLOT_HEIGHT,
    )
    file.writelines(parts)


def _images(finished: Iterable[Finished]) -> Iterator[dict[str, Any]]:
    for one in finished:
        explanation = one.result.explanation
        curves = explanation.curves
        labels = itertools.islice(one.result.heat_maps.items(), MAX_CLASSES)
        yield {
            "file": one.file,
            "true": one.true,
            "predicted": one.predicted,
            "is_wrong": one.is_wrong,
            "explanation": explanation,
            "gain": explanation.scores[explanation.predicted]
            - explanation.expected[explanation.predicted],
            "image": _thumbnail(one.folder / IMAGE),
            "outlines": _thumbnail(one.folder / OUTLINES),
            "heat_maps": [
                {
                    "class_name": one.class_names[label],
                    "score": explanation.scores[label],
                    "expected": explanation.expected[label],
                    "image": _thumbnail(one.folder / file),
                }
                for label, file in labels
            ],
            "lines": {
                "deletion": _points(curves.deletion),
                "insertion": _points(curves.insertion),
                "random": _points(curves.random),
            },
        }


def _thumbnail(path: Path) -> str:
    pixels = np.asarray(Image.open(path).convert("RGB"))
    data = heat_map.jpeg(pixels, THUMBNAIL_SIZE)
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


def _points(curve: tuple[float, ...]) -> str:
    """Return a curve of probabilities as SVG's points."""
    steps = len(curve) - 1
    places = (
        (PLOT_WIDTH * step / steps, PLOT_HEIGHT * (1 - value)) for step, value in enumerate(curve)
    )
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
