"""What rules look at, out of a training's records."""

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from container.classifier.errors import UserError
from container.debugger.reading.records import GRADIENTS, LOSSES, WEIGHTS, Mode, Point, Records
from container.debugger.rules.images import Labels

NO_BIAS = re.compile(r"(?:bias|\.b)$")


def patterns(collection_names: str | None, tensor_regex: str | None) -> list[str]:
    """Return regular expressions for what is asked for; both can be lists, by commas."""
    known = {"losses": LOSSES, "gradients": GRADIENTS, "weights": WEIGHTS, "biases": "bias"}
    found = [known.get(name.strip(), name.strip()) for name in _listed(collection_names)]
    found += _listed(tensor_regex)
    for pattern in found:
        try:
            re.compile(pattern)
        except re.error as error:
            message = f"{pattern!r} is no regular expression: {error}"
            raise UserError(message) from None
    return found


def _listed(text: str | None) -> list[str]:
    return [part for part in (text or "").split(",") if part.strip()]


def is_trained(records: Records) -> bool:
    """Tell whether the network was evaluated before its first step: its head was trained apart."""
    evaluations = records.losses("EVAL")
    training = records.losses(records.training)
    return bool(evaluations and training and evaluations[0].order < training[0].order)


def series(
    records: Records, pattern: Sequence[str], reduction: str, *, without_biases: bool = False
) -> dict[str, list[Point]]:
    """Return a reduction of every training tensor that a pattern finds."""
    mode = records.training
    found = {}
    for name in records.names(pattern, mode):
        if without_biases and NO_BIAS.search(name):
            continue
        points = records.points(name, reduction, mode)
        if points:
            found[name] = points
    return found


def arrays(
    records: Records, pattern: Sequence[str], mode: Mode | None = None
) -> dict[str, list[tuple[int, npt.NDArray[np.float64]]]]:
    """Return every tensor that a pattern finds and that was recorded as a whole, by step."""
    mode = mode or records.training
    found = {}
    for name in records.names(pattern, mode):
        wholes = [(record.step, record.whole()) for record in records.of(name, mode)]
        arrays = [(step, np.asarray(w, np.float64)) for step, w in wholes if w is not None]
        if arrays:
            found[name] = arrays
    return found


def active(output: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return in what share of an output (N, C, ...) each unit is above zero."""
    others = tuple(axis for axis in range(output.ndim) if axis != 1)
    share: npt.NDArray[np.float64] = (output > 0).mean(axis=others)
    return share


def ratios(records: Records, name: str, distance: int, epsilon: float) -> list[Point]:
    """Return a weight's changes from record to record, of whole tensors a number of steps apart."""
    wholes = [(r, r.whole()) for r in records.of(name, records.training)]
    known = {r.step: (r, np.asarray(w, np.float64)) for r, w in wholes if w is not None}
    points = []
    for step, (record, after) in known.items():
        if step - distance in known:
            before = known[step - distance][1]
            ratio = float((np.abs(after - before) / (np.abs(before) + epsilon)).mean())
            points.append(Point(record.order, step, ratio))
    return points


def learning_orders(records: Records, name: str) -> set[int] | None:
    """Return the records in which a weight had a gradient; None where none is recorded at all."""
    if not records.names(GRADIENTS, records.training):
        return None
    return {record.order for record in records.of(f"gradient/{name}", records.training)}


def last_evaluation(
    records: Records, labels: str, predictions: str, *, argmax: bool
) -> tuple[Labels, Labels] | None:
    """Return labels and predictions (N,) of the last evaluation."""
    true, named = (list(arrays(records, [each], "EVAL").values()) for each in (labels, predictions))
    if not (true and named):
        return None
    own, answers = true[0][-1][1], named[0][-1][1]
    if argmax and answers.ndim > 1:
        answers = answers.argmax(axis=1)
    if own.shape != answers.shape:
        message = "labels and predictions differ in shape: set argmax where they are probabilities"
        raise UserError(message)
    return own.ravel().astype(np.int64), answers.ravel().astype(np.int64)
