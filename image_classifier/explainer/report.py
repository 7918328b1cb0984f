"""The report of an analysis: one self-contained HTML page."""

import base64
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from image_classifier.explainer.analysis import Analysis
from image_classifier.explainer.image import encode_jpeg
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
    environment.filters["percent"] = lambda fraction: f"{100 * fraction:.1f}"
    environment.filters["thumbnail"] = _thumbnail
    environment.filters["points"] = _points
    parts = environment.get_template(TEMPLATE).generate(
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
    data = encode_jpeg(pixels, THUMBNAIL_SIZE)
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


def _points(curve: tuple[float, ...]) -> str:
    """Return a curve of probabilities as the points of an SVG polyline."""
    steps = len(curve) - 1
    points = (
        (PLOT_WIDTH * step / steps, PLOT_HEIGHT * (1 - value)) for step, value in enumerate(curve)
    )
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
