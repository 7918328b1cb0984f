"""Probabilities to a response's body; knows arrays and bytes, not Flask.

| type | body, for N pictures |
|---|---|
| `application/json` | `{"predictions": [N predictions], "class_names": [...]}` |
| `application/jsonlines` | N lines, a prediction each |
| `text/csv` | N lines, a picture's probabilities each, in class order |

A prediction is
`{"class_name": "cat", "probability": 0.9, "probabilities": [0.1, 0.9], "ranking": [...]}`:
`probabilities` in the order of `class_names`, which is how Clarify wants them (JMESPath
`predictions[0].probabilities`, in JSON Lines `probabilities`); `ranking` names the five most
probable classes, best first, as `{"class_name": "cat", "probability": 0.9}`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from werkzeug.datastructures import MIMEAccept
from werkzeug.exceptions import NotAcceptable
from werkzeug.http import parse_accept_header

Probabilities: TypeAlias = npt.NDArray[np.float32]

RANKED = 5


def choose_media_type(accept: str | None, default: str) -> str:
    """Return the answer's type for a request's Accept header: q-values, wildcards, or none.

    `default` is the one that serves where the client likes several as much.

    Raises:
        NotAcceptable: none of ours is wanted.
    """
    # In order of our preference; sorting is stable, so only the default moves.
    ours = sorted(MEDIA_TYPES, key=lambda media_type: media_type != default)
    if not accept or not accept.strip():
        return default
    # None of our types has parameters. Old clients of Java's send a lone `*`.
    wanted = MIMEAccept(
        ("*/*" if value == "*" else value.partition(";")[0], quality)
        for value, quality in parse_accept_header(accept)
    )
    if media_type := wanted.best_match(ours):
        return media_type
    message = f"Accept {accept[:80]!r} is none of {', '.join(MEDIA_TYPES)}"
    raise NotAcceptable(message)


def encode_response(
    probabilities: Probabilities, class_names: Sequence[str], media_type: str
) -> bytes:
    """Encode the answer for N pictures, whose probabilities are of shape (N, classes)."""
    return MEDIA_TYPES[media_type](probabilities, class_names).encode()


def _encode_json(probabilities: Probabilities, class_names: Sequence[str]) -> str:
    predictions = [_prediction(row, class_names) for row in probabilities]
    return _dump({"predictions": predictions, "class_names": list(class_names)})


def _encode_json_lines(probabilities: Probabilities, class_names: Sequence[str]) -> str:
    return "".join(_dump(_prediction(row, class_names)) + "\n" for row in probabilities)


def _encode_csv(probabilities: Probabilities, _class_names: Sequence[str]) -> str:
    return "".join(",".join(map(str, _numbers(row))) + "\n" for row in probabilities)


MEDIA_TYPES: Mapping[str, Callable[[Probabilities, Sequence[str]], str]] = {
    "application/json": _encode_json,
    "application/jsonlines": _encode_json_lines,
    "text/csv": _encode_csv,
}


def _prediction(row: Probabilities, class_names: Sequence[str]) -> Mapping[str, object]:
    numbers = _numbers(row)
    best_first = np.argsort(-row, kind="stable")[:RANKED]
    ranking = [
        {"class_name": class_names[label], "probability": numbers[label]} for label in best_first
    ]
    return {**ranking[0], "probabilities": numbers, "ranking": ranking}


def _numbers(row: Probabilities) -> list[float]:
    # Through float32's own text: 0.1 rather than 0.10000000149011612.
    return [float(str(value)) for value in row]


def _dump(document: Mapping[str, object]) -> str:
    return json.dumps(document, allow_nan=False, separators=(",", ":"))
