"""Images of a finished training, as PNG: curves, the confusion matrix, the calibration."""

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from container.training.evaluation.calibration import BINS, Calibration

# No screen in a container.
mpl.use("agg")

MAX_NAME = 30

# More cells than this are too small to hold their number.
MAX_NUMBERED_CLASSES = 20

# Told apart by color-blind people too (Okabe and Ito 2008).
BLUE, ORANGE = "#0072b2", "#d55e00"


def learning_curves(history: Sequence[Mapping[str, float]], kept: int) -> bytes:
    """Draw loss and accuracy by epoch; the epoch `kept`, from 1, is marked."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    epochs = range(1, len(history) + 1)
    styles = (("train", "training", ORANGE, "--"), ("val", "validation", BLUE, "-"))
    for axis, name in zip(axes, ("loss", "accuracy"), strict=True):
        for part, label, color, line in styles:
            values = [metrics[f"{part}_{name}"] for metrics in history]
            axis.plot(epochs, values, line, color=color, marker="o", label=label)
        axis.axvline(kept, color="gray", linestyle=":", label="kept")
        axis.set(xlabel="epoch", ylabel=name)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    return _png(figure)


def confusion_matrix(confusion: npt.NDArray[np.int64], class_names: Sequence[str]) -> bytes:
    """Draw the confusion matrix (C, C); colors are shares of the true class."""
    count = len(class_names)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    side = min(max(4.5, 0.5 * count + 2), 30)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the true class")
    axis.set(xlabel="predicted", ylabel="true")
    # A dollar sign in a name begins no formula.
    names = [name if len(name) <= MAX_NAME else name[:MAX_NAME] + "..." for name in class_names]
    axis.set_xticks(range(count), names, rotation=90, parse_math=False)
    axis.set_yticks(range(count), names, parse_math=False)
    if count <= MAX_NUMBERED_CLASSES:
        for (row, column), number in np.ndenumerate(confusion):
            dark = shares[row, column] > 0.5  # noqa: PLR2004
            color = "white" if dark else "black"
            axis.text(column, row, str(number), ha="center", va="center", color=color)
    return _png(figure)


def reliability(calibration: Calibration) -> bytes:
    """Draw how often answers of each probability are right, and how many there are."""
    figure = Figure(figsize=(6, 5.5), layout="constrained")
    axis, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    axis.plot((0, 1), (0, 1), color="gray", linestyle=":", label="as sure as right")
    styles = (
        ("before", calibration.before, ORANGE, "--", "s"),
        ("after", calibration.after, BLUE, "-", "o"),
    )
    for name, bins, color, line, marker in styles:
        some = bins.images > 0
        axis.plot(
            bins.confidence[some],
            bins.accuracy[some],
            line,
            color=color,
            marker=marker,
            label=f"{name}: error {bins.error:.3f}",
        )
    axis.set(ylabel="share that is right", ylim=(-0.03, 1.03))
    axis.grid(alpha=0.3)
    axis.legend()
    edges = np.arange(BINS) / BINS
    below.bar(edges, calibration.after.images, 1 / BINS, align="edge", color=BLUE)
    below.set(xlabel="probability of the answer", ylabel="images", xlim=(0, 1))
    return _png(figure)


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, dpi=120)
    return file.getvalue()
