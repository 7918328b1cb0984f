"""Bodies of requests and responses: images encoded, scores parsed."""

import base64
import io
import json
from typing import Any, NamedTuple

import jmespath
import jmespath.exceptions
import numpy as np
import numpy.typing as npt
from PIL import Image

from container.classifier.errors import UserError
from container.classifier.media_types import CSV, JSON, JSON_LINES, NPY
from container.classifier.preprocessing import Pixels
from image_classifier.explainer.analysis import JPEG, PNG

# Types of which one body can contain several images, if the endpoint accepts that.
BATCH_TYPES = (NPY, JSON)

MAX_SHOWN = 200


class Scores(NamedTuple):
    """The scores of one response."""

    rows: npt.NDArray[np.float64]
    """Of shape (N, C), one row per image."""

    class_names: tuple[str, ...] | None
    """None if the response does not name the classes."""


def encode_images(images: Pixels, content_type: str) -> bytes:
    """Return the body for images (N, H, W, 3); N is 1 for types of one image."""
    if content_type == JSON:
        files = [base64.b64encode(_encode_file(image, "PNG")).decode() for image in images]
        return json.dumps({"instances": files}).encode()
    if content_type == NPY:
        buffer = io.BytesIO()
        # Like Clarify, send one image as H x W x 3.
        np.save(buffer, images if len(images) > 1 else images[0], allow_pickle=False)
        return buffer.getvalue()
    return _encode_file(images[0], {JPEG: "JPEG", PNG: "PNG"}[content_type])


def parse_scores(body: bytes, media_type: str, probability: str | None) -> Scores:
    """Parse a response; `probability` is the JMESPath of the scores in JSON.

    Raises:
        UserError: the response has no scores, or a score is not a finite number.
    """
    try:
        text = body.decode()
        if media_type == CSV:
            cells: Any = [line.split(",") for line in text.split("\n") if line.strip()]
            return Scores(_rows(cells), None)
        if media_type == JSON_LINES:
            lines = [json.loads(line) for line in text.split("\n") if line.strip()]
            return Scores(_rows([_find_scores(line, probability) for line in lines]), None)
        document = json.loads(text)
        return Scores(_rows(_find_scores(document, probability)), _class_names(document))
    except jmespath.exceptions.JMESPathError as error:
        raise UserError(f"predictor.probability is not a JMESPath: {error}") from error
    except (ValueError, TypeError, RecursionError) as error:
        start = body[:MAX_SHOWN].decode(errors="replace")
        raise UserError(
            f"no scores in the endpoint's response ({error}): {start!r}; set predictor.probability "
            "to the JMESPath of a list with the score of every class"
        ) from error


def _encode_file(image: Pixels, file_format: str) -> bytes:
    buffer = io.BytesIO()
    # JPEG: keep the edges of superpixels. PNG: lossless at any level, so save time.
    settings = {"JPEG": {"quality": 95, "subsampling": 0}, "PNG": {"compress_level": 1}}
    Image.fromarray(image).save(buffer, file_format, **settings[file_format])
    return buffer.getvalue()


def _find_scores(document: Any, probability: str | None) -> Any:  # noqa: ANN401 - any JSON
    if probability is not None:
        return jmespath.search(probability, document)
    # The names that this project and many others use; without them, the document is the scores.
    for name in ("predictions", "probabilities"):
        if isinstance(document, dict) and name in document:
            document = document[name]
    if isinstance(document, list) and document and isinstance(document[0], dict):
        return [_find_scores(item, None) for item in document]
    return document


def _rows(scores: Any) -> npt.NDArray[np.float64]:  # noqa: ANN401 - any JSON
    rows = np.asarray(scores, dtype=np.float64)
    # The scores of one image may be nested in any number of lists: [[[0.1, 0.9]]].
    rows = rows.reshape(-1, rows.shape[-1]) if rows.ndim else rows
    if rows.ndim == 0 or rows.size == 0 or not np.isfinite(rows).all():
        raise ValueError("expected a list of finite numbers per image")
    return rows


def _class_names(document: object) -> tuple[str, ...] | None:
    names = document.get("class_names") if isinstance(document, dict) else None
    return tuple(map(str, names)) if isinstance(names, list) and names else None
