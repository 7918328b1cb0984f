"""Answers to a response's body; knows arrays and bytes, not Flask.

| type | body, for N images |
|---|---|
| `application/json` | `{"predictions": [N predictions], "class_names": [...]}` |
| `application/jsonlines` | N lines, a prediction each |
| `text/csv` | N lines, an image's probabilities each, in class order |

The last line has no end: batch transform adds that, where it puts answers together.

A prediction is
`{"class_name": "cat", "probability": 0.9, "probabilities": [0.1, 0.9], "ranking": [...]}`:
`probabilities` in the order of `class_names`, which is how Clarify wants them (JMESPath
`predictions[0].probabilities`, in JSON Lines `probabilities`); `ranking` names the five most
probable classes, best first, as `{"class_name": "cat", "probability": 0.9}`.

In the place of an image that cannot be read stands `{"error": {"code": "...", "message": "..."}}`.
A request fails as a whole where no image can be read, unless `has_error_records`, and where the
answer is CSV, which has no place for it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from werkzeug.datastructures import MIMEAccept
from werkzeug.exceptions import HTTPException, NotAcceptable
from werkzeug.http import parse_accept_header

from container.classifier.vocabulary import CSV, RESPONSE_MEDIA_TYPES
from container.serving.http.errors import describe

Probabilities: TypeAlias = npt.NDArray[np.float32]

Answer: TypeAlias = Probabilities | HTTPException
"""Of one image: probabilities of shape (classes,), or why there are none."""

RANKED = 5


def choose_media_type(accept: str | None, default: str) -> str:
    """Return the answer's type for a request's Accept header: q-values, wildcards, or none.

    `default` is the one that serves where the client likes several as much.

    Raises:
        NotAcceptable: none of ours is wanted.
    """
    # In order of our preference; sorting is stable, so only the default moves.
    ours = sorted(RESPONSE_MEDIA_TYPES, key=lambda media_type: media_type != default)
    if not accept or not accept.strip():
        return default
    # None of our types has parameters. Old clients of Java's send a lone `*`.
    wanted = MIMEAccept(
        ("*/*" if value == "*" else value.partition(";")[0], quality)
        for value, quality in parse_accept_header(accept)
    )
    if media_type := wanted.best_match(ours):
        return media_type
    message = f"Accept {accept[:80]!r} is none of {', '.join(RESPONSE_MEDIA_TYPES)}"
    raise NotAcceptable(message)


def encode_response(
    answers: Sequence[Answer],
    class_names: Sequence[str],
    media_type: str,
    *,
    has_error_records: bool = False,
) -> bytes:
    """Encode the answers of one image or several.

    Raises:
        HTTPException: the first error, where it has no place in the answer.
    """
    errors = [answer for answer in answers if isinstance(answer, HTTPException)]
    is_lost = len(errors) == len(answers) and not has_error_records
    if errors and (is_lost or media_type == CSV):
        raise errors[0]
    return ENCODERS[media_type](answers, class_names).encode()


def _encode_json(answers: Sequence[Answer], class_names: Sequence[str]) -> str:
    predictions = [_prediction(answer, class_names) for answer in answers]
    return _dump({"predictions": predictions, "class_names": list(class_names)})


def _encode_json_lines(answers: Sequence[Answer], class_names: Sequence[str]) -> str:
    return "\n".join(_dump(_prediction(answer, class_names)) for answer in answers)


def _encode_csv(answers: Sequence[Answer], _class_names: Sequence[str]) -> str:
    rows = (answer for answer in answers if not isinstance(answer, HTTPException))
    return "\n".join(",".join(map(str, _numbers(row))) for row in rows)


ENCODERS: Mapping[str, Callable[[Sequence[Answer], Sequence[str]], str]] = dict(
    zip(RESPONSE_MEDIA_TYPES, (_encode_json, _encode_json_lines, _encode_csv), strict=True)
)


def _prediction(answer: Answer, class_names: Sequence[str]) -> Mapping[str, object]:
    if isinstance(answer, HTTPException):
        return describe(answer)
    numbers = _numbers(answer)
    best_first = np.argsort(-answer, kind="stable")[:RANKED]
    ranking = [
        {"class_name": class_names[label], "probability": numbers[label]} for label in best_first
    ]
    return {**ranking[0], "probabilities": numbers, "ranking": ranking}


def _numbers(row: Probabilities) -> list[float]:
    # Through float32's own text: 0.1 rather than 0.10000000149011612.
    return [float(str(value)) for value in row]


def _dump(document: Mapping[str, object]) -> str:
    return json.dumps(document, allow_nan=False, separators=(",", ":"))
