"""Selection of the tensors that rules evaluate."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from container.classifier.errors import UserError
from container.debugger.reading.records import GRADIENTS, LOSSES, WEIGHTS, Mode, Point, Records

BIAS = re.compile(r"(?:bias|\.b)$")

# Records that many rules skip: a new head's weights are zero in the first one, and so no gradient
# passes it.
FIRST = 1

Labels = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


def patterns(collection_names: str | None, tensor_regex: str | None) -> list[str]:
    """Return the regular expressions of collections and tensors, each a comma-separated list.

    Raises:
        UserError: one is not a regular expression.
    """
    known = {"losses": LOSSES, "gradients": GRADIENTS, "weights": WEIGHTS, "biases": "bias"}
    names, regexes = ((text or "").split(",") for text in (collection_names, tensor_regex))
    found = [known.get(name.strip(), name.strip()) for name in names if name.strip()]
    found += [regex for regex in regexes if regex.strip()]
    for pattern in found:
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"{pattern!r} is not a regular expression: {error}") from None
    return found


def is_trained(records: Records) -> bool:
    """Return whether there is an evaluation before the first step: the head was trained before."""
    evaluations = records.losses("EVAL")
    training = records.losses(records.training)
    return bool(evaluations and training and evaluations[0].order < training[0].order)


def series(
    records: Records, pattern: Sequence[str], reduction: str, *, without_biases: bool = False
) -> dict[str, list[Point]]:
    """Return a reduction of every training tensor that a pattern matches."""
    found = {
        name: records.points(name, reduction, records.training)
        for name in records.names(pattern, records.training)
        if not (without_biases and BIAS.search(name))
    }
    return {name: points for name, points in found.items() if points}


def without_first(found: Mapping[str, list[Point]]) -> dict[str, list[Point]]:
    """Return series without the first record; those with no other record are left out."""
    return {name: points[FIRST:] for name, points in found.items() if len(points) > FIRST}


def arrays(
    records: Records, pattern: Sequence[str], mode: Mode | None = None
) -> dict[str, list[tuple[int, Values]]]:
    """Return every whole tensor that a pattern matches, with its steps."""
    mode = mode or records.training
    found = {}
    for name in records.names(pattern, mode):
        wholes = [(record.step, record.whole()) for record in records.of(name, mode)]
        arrays = [(step, np.asarray(w, np.float64)) for step, w in wholes if w is not None]
        if arrays:
            found[name] = arrays
    return found


def unit_means(values: npt.NDArray[np.bool_]) -> Values:
    """Return the share of true values of each unit: (N, C, ...) to (C,)."""
    means: Values = values.mean(axis=tuple(axis for axis in range(values.ndim) if axis != 1))
    return means


def update_ratios(records: Records, name: str, distance: int, epsilon: float) -> list[Point]:
    """Return the relative changes of a whole weight between records `distance` steps apart."""
    wholes = [(record, record.whole()) for record in records.of(name, records.training)]
    known = {r.step: (r, np.asarray(w, np.float64)) for r, w in wholes if w is not None}
    points = []
    for step, (record, after) in known.items():
        if step - distance in known:
            before = known[step - distance][1]
            ratio = float((np.abs(after - before) / (np.abs(before) + epsilon)).mean())
            points.append(Point(record.order, step, ratio))
    return points


def last_evaluation(
    records: Records, labels: str, predictions: str, *, argmax: bool
) -> tuple[Labels, Labels] | None:
    """Return labels and predictions (N,) of the last evaluation, or None without one.

    Raises:
        UserError: their shapes differ.
    """
    found = [list(arrays(records, [regex], "EVAL").values()) for regex in (labels, predictions)]
    if not all(found):
        return None
    true, predicted = (tensors[0][-1][1] for tensors in found)
    if argmax and predicted.ndim > 1:
        predicted = predicted.argmax(axis=1)
    if true.shape != predicted.shape:
        raise UserError(
            "labels and predictions differ in shape: set argmax if they are probabilities"
        )
    return true.ravel().astype(np.int64), predicted.ravel().astype(np.int64)
