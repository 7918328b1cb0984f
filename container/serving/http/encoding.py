"""Encode predictions as a response body. Independent of Flask.

| media type | body, for N images |
|---|---|
| `application/json` | `{"predictions": [N predictions], "class_names": [...]}` |
| `application/jsonlines` | N lines with a prediction each |
| `text/csv` | N lines with an image's probabilities each, in class order |

The last line has no line feed: batch transform adds one when it joins responses.

A prediction is
`{"class_name": "cat", "probability": 0.9, "probabilities": [0.1, 0.9], "ranking": [...]}`.
`probabilities` has the order of `class_names`, as Clarify expects (JMESPath
`predictions[0].probabilities`, in JSON Lines `probabilities`). `ranking` lists the five most
probable classes, best first, as `{"class_name": "cat", "probability": 0.9}`.

`top=N` after the media type in Accept, such as `application/json;top=3`, replaces `probabilities`
and `class_names` by a `ranking` of the best N: for models of many classes.

An image that cannot be read gets `{"error": {"code": "...", "message": "..."}}` instead. The whole
request fails if no image can be read, unless `has_error_records`, and if the response is CSV,
which cannot hold an error.
"""

import json
from collections.abc import Mapping, Sequence

import numpy as np
from werkzeug.datastructures import MIMEAccept
from werkzeug.exceptions import HTTPException, NotAcceptable
from werkzeug.http import parse_accept_header, parse_options_header

from container.classifier.media_types import CSV, JSON, RESPONSE_MEDIA_TYPES
from container.serving.http.errors import describe
from container.serving.model.outcome import Probabilities, Result

RANKED = 5


def choose_media_type(accept: str | None, default: str) -> str:
    """Return the response's media type for an Accept header with q-values and wildcards.

    Args:
        accept: The header's value; None if the request has none.
        default: The preferred media type among those with the highest q-value.

    Raises:
        NotAcceptable: The header accepts none of ours.
    """
    # In order of our preference; the sort is stable, so only the default moves.
    ours = sorted(RESPONSE_MEDIA_TYPES, key=lambda media_type: media_type != default)
    if not accept or not accept.strip():
        return default
    # Only `top` has a meaning, see `ranked_classes`. Old Java clients send a lone `*`.
    wanted = MIMEAccept(
        ("*/*" if value == "*" else value.partition(";")[0], quality)
        for value, quality in parse_accept_header(accept)
    )
    if media_type := wanted.best_match(ours):
        return media_type
    raise NotAcceptable(f"Accept {accept[:80]!r} is not one of {', '.join(RESPONSE_MEDIA_TYPES)}")


def ranked_classes(accept: str | None, media_type: str) -> int | None:
    """Return the number of classes that an Accept header names; None for all of them.

    Args:
        accept: The header's value.
        media_type: The response's media type.

    Raises:
        NotAcceptable: It is not a positive number, or the media type has no ranking.
    """
    options = [parse_options_header(value) for value, _ in parse_accept_header(accept)]
    tops = [
        found["top"]
        for accepted, found in options
        if "top" in found and MIMEAccept([(accepted, 1)]).best_match([media_type])
    ]
    if not tops:
        return None
    if media_type == CSV:
        raise NotAcceptable(f"{CSV} has a column for every class: accept {JSON};top={tops[0][:9]}")
    if not (tops[0].isascii() and tops[0].isdecimal() and int(tops[0][:9])):
        raise NotAcceptable(f"top={tops[0][:80]} in Accept is not a number of classes from 1 on")
    return int(tops[0][:9])


def encode_response(
    results: Sequence[Result],
    class_names: Sequence[str],
    media_type: str,
    *,
    top: int | None = None,
    has_error_records: bool = False,
) -> bytes:
    """Encode the results of one image or several, with the `top` classes or all of them.

    Raises:
        HTTPException: The first error, if the response cannot hold it.
    """
    errors = [result for result in results if isinstance(result, HTTPException)]
    if errors and (media_type == CSV or (len(errors) == len(results) and not has_error_records)):
        raise errors[0]
    if media_type == CSV:
        rows = (result for result in results if not isinstance(result, HTTPException))
        return "\n".join(",".join(map(str, _numbers(row))) for row in rows).encode()
    predictions = [_prediction(result, class_names, top) for result in results]
    if media_type == JSON:
        names = {} if top else {"class_names": list(class_names)}
        return _dump({"predictions": predictions, **names}).encode()
    return "\n".join(map(_dump, predictions)).encode()


def _prediction(
    result: Result, class_names: Sequence[str], top: int | None
) -> Mapping[str, object]:
    if isinstance(result, HTTPException):
        return describe(result)
    best_first = np.argsort(-result, kind="stable")[: top or RANKED]
    ranking = [
        {"class_name": class_names[label], "probability": number}
        for label, number in zip(best_first, _numbers(result[best_first]), strict=True)
    ]
    complete = {} if top else {"probabilities": _numbers(result)}
    return {**ranking[0], **complete, "ranking": ranking}


def _numbers(probabilities: Probabilities) -> list[float]:
    # Through float32's own text: 0.1 rather than 0.10000000149011612.
    return [float(str(value)) for value in probabilities]


def _dump(document: Mapping[str, object]) -> str:
    return json.dumps(document, allow_nan=False, separators=(",", ":"))
