"""Pictures of a finished training: learning curves and the confusion matrix."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

# No screen in a container.
mpl.use("agg")

MAX_NAME = 30

# More cells than this are too small to hold their number.
MAX_NUMBERED_CLASSES = 20


def learning_curves(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Write loss and accuracy by epoch as PNG."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    epochs = range(1, len(history) + 1)
    for axis, name in zip(axes, ("loss", "accuracy"), strict=True):
        for part, label in (("train", "training"), ("val", "validation")):
            values = [metrics[f"{part}_{name}"] for metrics in history]
            axis.plot(epochs, values, marker="o", label=label)
        axis.set(xlabel="epoch", ylabel=name)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=120)


def confusion_matrix(
    path: Path, confusion: npt.NDArray[np.int64], class_names: Sequence[str]
) -> None:
    """Write the confusion matrix (C, C) as PNG; colours are shares of the true class."""
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
    figure.savefig(path, dpi=120)
