"""Plots of a finished training, as PNG: learning curves, confusion matrix, reliability."""

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from container.training.evaluation.calibration import BINS, Calibration

# A container has no screen.
mpl.use("agg")

MAX_NAME = 30

# With more classes, the cells are too small for numbers.
MAX_NUMBERED_CLASSES = 20

# With more classes, names overlap; their layout would take minutes.
MAX_NAMED_CLASSES = 100

# Distinguishable for color-blind people (Okabe and Ito 2008).
BLUE, ORANGE = "#0072b2", "#d55e00"


def learning_curves(
    history: Sequence[Mapping[str, float]], saved: int, initial: Mapping[str, float] | None = None
) -> bytes:
    """Draw loss and accuracy by epoch, with a mark at the epoch `saved`.

    Args:
        history: the metrics of the epochs from 1 on.
        saved: the epoch whose weights were saved; 0 means before the first epoch.
        initial: the validation metrics of epoch 0, if they are known.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    epochs = (
        dict(enumerate(history, 1)) if initial is None else dict(enumerate((initial, *history)))
    )
    styles = (("train", "training", ORANGE, "--"), ("val", "validation", BLUE, "-"))
    for axis, name in zip(axes, ("loss", "accuracy"), strict=True):
        for part, label, color, line in styles:
            key = f"{part}_{name}"
            points = {epoch: metrics[key] for epoch, metrics in epochs.items() if key in metrics}
            if points:
                axis.plot([*points], [*points.values()], line, color=color, marker="o", label=label)
        axis.axvline(saved, color="gray", linestyle=":", label="saved weights")
        axis.set(xlabel="epoch", ylabel=name)
        axis.xaxis.get_major_locator().set_params(integer=True)
        if len(epochs) == 1:
            # The head alone: else the axis has fractions of an epoch.
            axis.set_xlim(saved - 0.5, saved + 0.5)
        axis.grid(alpha=0.3)
        # Where good curves do not end.
        axis.legend(loc="upper right" if name == "loss" else "lower right")
    # From zero, so that small differences look small.
    axes[0].set_ylim(bottom=0)
    axes[1].set_ylim(0, 1.02)
    return _png(figure)


def confusion_matrix(confusion: npt.NDArray[np.int64], class_names: Sequence[str]) -> bytes:
    """Draw the confusion matrix (C, C); colors are fractions of the true class."""
    count = len(class_names)
    fractions = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    side = min(max(4.5, 0.5 * count + 2), 30) if count <= MAX_NAMED_CLASSES else 12
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="fraction of the true class")
    axis.set(xlabel="predicted", ylabel="true")
    if count > MAX_NAMED_CLASSES:
        axis.set(xlabel="predicted, in the order of the names", ylabel="true")
        return _png(figure)
    # Without parse_math, because a dollar sign in a name would start a formula.
    names = [name if len(name) <= MAX_NAME else name[:MAX_NAME] + "..." for name in class_names]
    axis.set_xticks(range(count), names, rotation=90, parse_math=False)
    axis.set_yticks(range(count), names, parse_math=False)
    if count <= MAX_NUMBERED_CLASSES:
        for (row, column), number in np.ndenumerate(confusion):
            dark = fractions[row, column] > 0.5  # noqa: PLR2004
            color = "white" if dark else "black"
            axis.text(column, row, str(number), ha="center", va="center", color=color)
    return _png(figure)


def reliability(calibration: Calibration) -> bytes:
    """Draw a reliability diagram and the number of predictions per bin."""
    figure = Figure(figsize=(6, 5.5), layout="constrained")
    axis, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    axis.plot((0, 1), (0, 1), color="gray", linestyle=":", label="perfect calibration")
    styles = [
        ("before", calibration.before, ORANGE, "--", "s"),
        ("after", calibration.after, BLUE, "-", "o"),
    ]
    if calibration.temperature == 1:
        styles = [("not calibrated", calibration.after, BLUE, "-", "o")]
    for name, bins, color, line, marker in styles:
        some = bins.images > 0
        axis.plot(
            bins.confidence[some],
            bins.accuracy[some],
            line,
            color=color,
            marker=marker,
            label=f"{name}: ECE {bins.error:.3f}",
        )
    axis.set(ylabel="accuracy", ylim=(-0.03, 1.03))
    axis.grid(alpha=0.3)
    axis.legend()
    edges = np.arange(BINS) / BINS
    below.bar(edges, calibration.after.images, 1 / BINS, align="edge", color=BLUE)
    below.set(xlabel="probability of the predicted class", ylabel="images", xlim=(0, 1))
    return _png(figure)


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, dpi=120)
    return file.getvalue()
