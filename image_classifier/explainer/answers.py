"""An endpoint's answer as scores: CSV, JSON Lines, or JSON of several shapes."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import jmespath
import jmespath.exceptions
import numpy as np
import numpy.typing as npt

from container.classifier.errors import UserError
from container.classifier.vocabulary import CSV, JSON_LINES

MAX_SHOWN = 200


class Scores(NamedTuple):
    """One row an image."""

    rows: npt.NDArray[np.float64]
    """Of shape (N, C)."""

    class_names: tuple[str, ...] | None
    """Where the answer has them."""


def parse(body: bytes, media_type: str, probability: str | None) -> Scores:
    """Read an answer; `probability` is a JMESPath to the scores, for JSON.

    Raises:
        UserError: there are no scores in it, or one is no finite number.
    """
    try:
        text = body.decode()
        if media_type == CSV:
            found: Any = [line.split(",") for line in text.split("\n") if line.strip()]
            return Scores(_rows(found), None)
        if media_type == JSON_LINES:
            lines = [json.loads(line) for line in text.split("\n") if line.strip()]
            return Scores(_rows([_found(line, probability) for line in lines]), None)
        document = json.loads(text)
        return Scores(_rows(_found(document, probability)), _class_names(document))
    except jmespath.exceptions.JMESPathError as error:
        message = f"probability is no JMESPath: {error}"
        raise UserError(message) from error
    except (ValueError, TypeError, RecursionError) as error:
        shown = body[:MAX_SHOWN].decode(errors="replace")
        message = (
            f"no scores in the endpoint's answer ({error}): {shown!r}; set predictor.probability "
            "to the JMESPath of a list with the score of every class"
        )
        raise UserError(message) from error


def _found(document: Any, probability: str | None) -> Any:  # noqa: ANN401 - any JSON
    """Return what stands where the scores are."""
    if probability is not None:
        return jmespath.search(probability, document)
    # Of this project and of many others; where there is neither name, nothing but scores.
    for name in ("predictions", "probabilities"):
        if isinstance(document, dict) and name in document:
            document = document[name]
    if isinstance(document, list) and document and isinstance(document[0], dict):
        return [_found(one, None) for one in document]
    return document


def _rows(found: Any) -> npt.NDArray[np.float64]:  # noqa: ANN401 - any JSON
    rows = np.asarray(found, dtype=np.float64)
    # One image's scores may stand in as many lists as one likes: [[[0.1, 0.9]]].
    rows = rows.reshape(-1, rows.shape[-1]) if rows.ndim else rows
    if rows.ndim == 0 or rows.size == 0 or not np.isfinite(rows).all():
        message = "a list of finite numbers for every image is needed"
        raise ValueError(message)
    return rows


def _class_names(document: object) -> tuple[str, ...] | None:
    names: Sequence[object] | None = None
    if isinstance(document, dict):
        names = document.get("class_names")
    return tuple(map(str, names)) if isinstance(names, list) and names else None
