"""Splits a request body into images and decodes them to pixels; independent of Flask.

| Content-Type | body | images |
|---|---|---|
| `image/jpeg`, `image/jpg`, `image/png`, `image/webp`, `image/gif`, `image/bmp` | an image | 1 |
| `application/x-image` | an image's file | 1 |
| `application/x-npy` | NumPy's uint8 array (H, W, 3) or (N, H, W, 3), RGB | 1 or N |
| `application/json` | `{"instances": [...]}`: base64 texts or `{"b64": "..."}` of files | N |
| `application/jsonlines` | N lines, each a base64 text or `{"b64": "..."}` of a file | N |
| `application/octet-stream`, none | an image's file or a NumPy array, by its first bytes | |
| `application/x-www-form-urlencoded` | the same: curl's default | |

The bytes of an image decide its format, not the Content-Type. Nothing in a request is fetched
from elsewhere. Splitting a body is fast; its images are decoded later and in parallel, and one
that cannot be read fails alone.
"""

import base64
import io
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeAlias

import numpy as np
from PIL import Image
from werkzeug.exceptions import (
    BadRequest,
    HTTPException,
    RequestEntityTooLarge,
    UnprocessableEntity,
    UnsupportedMediaType,
)

from container.classifier.errors import ImageError
from container.classifier.preprocessing import Pixels, Preprocessing, fit, preprocess
from container.classifier.vocabulary import ANY_IMAGE, IMAGE_MEDIA_TYPES, JSON, JSON_LINES, NPY
from container.serving.model.outcome import ImageDecoder
from container.serving.settings import BATCH_IMAGES

# Brackets, braces and commas of a JSON document; 64 images have 129 and base64 none of them.
# Parsed, 25 MB of them become 650 MB.
MAX_JSON_MARKS = 1000
JSON_START = re.compile(rb"\s*[\[{]")

Splitter: TypeAlias = Callable[[bytes], Sequence[ImageDecoder]]

WHITESPACE = b" \t\r\n"

NPY_MAGIC = b"\x93NUMPY"
NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def choose_splitter(content_type: str | None) -> Splitter:
    """Return what takes a body of a request's Content-Type apart.

    Raises:
        UnsupportedMediaType: nothing does.
    """
    media_type = (content_type or "application/octet-stream").partition(";")[0].strip().lower()
    if splitter := SPLITTERS.get(media_type):
        return splitter
    raise UnsupportedMediaType(
        f"Content-Type {media_type[:60]!r} is not one of {', '.join(SPLITTERS)}"
    )


def split_image(data: bytes) -> Sequence[ImageDecoder]:
    """Take the body for one image's file."""
    return (partial(_decode, data),)


def split_npy(data: bytes) -> Sequence[ImageDecoder]:
    """Split a NumPy file of one image or several of one size.

    Raises:
        UnprocessableEntity: it is another kind of array, or damaged.
    """
    array = _read_npy(data)
    images = array if array.ndim == len("NHWC") else array[np.newaxis]
    return [partial(_fit, image) for image in images]


def split_json(data: bytes) -> Sequence[ImageDecoder]:
    """Split a document with images' files in base64.

    Raises:
        BadRequest: not the JSON expected.
        RequestEntityTooLarge: it would fill the memory.
    """
    document = _parse(data, "the body")
    instances = document.get("instances") if isinstance(document, dict) else None
    if not isinstance(instances, list) or not instances:
        raise BadRequest('expected {"instances": [{"b64": "<an image\'s file in base64>"}, ...]}')
    return [
        partial(_decode_instance, f"instance {number}", each)
        for number, each in enumerate(instances)
    ]


def split_json_lines(data: bytes) -> Sequence[ImageDecoder]:
    """Split lines with an image's file in base64 each; an empty one is an image that fails.

    Raises:
        RequestEntityTooLarge: too many lines.
    """
    # Lines are parsed one at a time, later; their number is limited here.
    if data.count(b"\n") > BATCH_IMAGES:
        raise RequestEntityTooLarge(f"a request may have at most {BATCH_IMAGES} lines")
    lines = data.removesuffix(b"\n").split(b"\n")
    return [partial(_decode_line, f"line {number}", line) for number, line in enumerate(lines)]


def split_body(
    split: Splitter, data: bytes, *, most: int, has_error_records: bool
) -> Sequence[ImageDecoder]:
    """Split a body into at most so many images.

    With `has_error_records`, one that cannot be split is an image that fails.

    Raises:
        BadRequest, UnprocessableEntity: it is empty, or `split` raises it.
        RequestEntityTooLarge: too many images.
    """
    try:
        if not data:
            raise BadRequest("the body is empty")
        images = split(data)
    except (BadRequest, UnprocessableEntity) as error:
        if not has_error_records:
            raise
        return [partial(_fail, error)]
    if len(images) > most:
        raise RequestEntityTooLarge(f"a request may hold at most {most} images, got {len(images)}")
    return images


def split_by_content(data: bytes) -> Sequence[ImageDecoder]:
    """Take the body for what its first bytes show, a NumPy file or else an image."""
    return (split_npy if data.startswith(NPY_MAGIC) else split_image)(data)


SPLITTERS: Mapping[str, Splitter] = {
    **dict.fromkeys((*IMAGE_MEDIA_TYPES.values(), "image/jpg", ANY_IMAGE), split_image),
    NPY: split_npy,
    JSON: split_json,
    JSON_LINES: split_json_lines,
    "application/octet-stream": split_by_content,
    # curl's default.
    "application/x-www-form-urlencoded": split_by_content,
}


def _fail(error: HTTPException, _settings: Preprocessing) -> Pixels:
    raise error


def _decode(data: bytes, settings: Preprocessing) -> Pixels:
    try:
        return preprocess(data, settings)
    except ImageError as error:
        raise UnprocessableEntity(str(error)) from error


def _fit(image: Pixels, settings: Preprocessing) -> Pixels:
    return fit(Image.fromarray(image), settings)


def _decode_line(name: str, line: bytes, settings: Preprocessing) -> Pixels:
    return _decode_instance(name, _parse(line, name), settings)


def _decode_instance(name: str, instance: object, settings: Preprocessing) -> Pixels:
    text = instance.get("b64") if isinstance(instance, dict) else instance
    if not isinstance(text, str):
        raise BadRequest(f'{name} is neither a base64 text nor {{"b64": "..."}}')
    try:
        # `base64` and Python's `encodebytes` break their lines.
        packed = text.encode("ascii").translate(None, WHITESPACE)
        return _decode(base64.b64decode(packed, validate=True), settings)
    except ValueError as error:
        raise BadRequest(f"{name} is not base64: {error}") from error
    except UnprocessableEntity as error:
        raise UnprocessableEntity(f"{name}: {error.description}") from error


def _parse(data: bytes, name: str) -> object:
    if sum(map(data.count, (b"[", b"{", b","))) > MAX_JSON_MARKS:
        if not JSON_START.match(data):
            raise BadRequest(f"{name} is not JSON: it begins with neither a bracket nor a brace")
        raise RequestEntityTooLarge(
            f"{name} has more than {MAX_JSON_MARKS} brackets, braces and commas, "
            "which images in base64 do not need"
        )
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"{name} is not JSON: {error}") from error


def _read_npy(data: bytes) -> Pixels:
    """Read an array without `numpy.load`, which makes room for any shape that a header names."""
    file = io.BytesIO(data)
    try:
        shape, is_fortran, dtype = NPY_HEADERS[np.lib.format.read_magic(file)](file)
        # Fails on numbers of thousands of digits, which no sentence could have.
        np.array(shape, np.int64)
        count = math.prod(shape)
    except Exception as error:
        # NumPy parses the header as Python and raises any type of error for a damaged one.
        raise UnprocessableEntity(
            "not a NumPy file of version 1.0 or 2.0, or a damaged one"
        ) from error
    # NumPy takes `True` for a number.
    is_shape = len(shape) in {3, 4} and all(type(size) is int and size > 0 for size in shape)
    if dtype != np.uint8 or not is_shape or shape[-1] != len("RGB"):
        raise UnprocessableEntity(
            "a NumPy array must be uint8 of shape (height, width, 3) or (images, height, "
            f"width, 3), got {dtype} of shape {shape}"
        )
    if len(data) - file.tell() != count:
        raise UnprocessableEntity(
            f"the NumPy file's shape needs {count} bytes, it has {len(data) - file.tell()}"
        )
    values = np.frombuffer(data, np.uint8, offset=file.tell())
    return values.reshape(shape, order="F" if is_fortran else "C")
