"""Split a request body into images and decode them to pixels. Independent of Flask.

| Content-Type | body | images |
|---|---|---|
| `image/jpeg`, `image/jpg`, `image/png`, `image/webp`, `image/gif`, `image/bmp` | an image | 1 |
| `application/x-image` | an image file | 1 |
| `application/x-npy` | `.npy` file: uint8 (H, W, 3) or (N, H, W, 3), RGB | 1 or N |
| `application/json` | `{"instances": [...]}`: base64 strings or `{"b64": "..."}` of images | N |
| `application/jsonlines` | N lines, each a base64 string or `{"b64": "..."}` of an image | N |
| `application/octet-stream`, none | an image file or a `.npy` file, by its first bytes | |
| `application/x-www-form-urlencoded` | the same, because it is curl's default | |

The format of an image is detected from its bytes, not from the Content-Type. URLs in a request are
not fetched. Splitting is fast; images are decoded later, in parallel. An image that cannot be read
does not fail the others.
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
from container.classifier.media_types import ANY_IMAGE, IMAGE_MEDIA_TYPES, JSON, JSON_LINES, NPY
from container.classifier.preprocessing import Pixels, Preprocessing, fit, preprocess
from container.serving.model.outcome import ImageDecoder
from container.serving.settings import BATCH_IMAGES

# Brackets, braces and commas in a JSON document: 64 images need 129, and base64 has none. Parsing
# 25 MB of them takes 650 MB.
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
    """Return the splitter for a Content-Type.

    Raises:
        UnsupportedMediaType: No splitter supports it.
    """
    media_type = (content_type or "application/octet-stream").partition(";")[0].strip().lower()
    if splitter := SPLITTERS.get(media_type):
        return splitter
    others = (name for name in SPLITTERS if not name.startswith("image/"))
    raise UnsupportedMediaType(
        f"Content-Type {media_type[:60]!r} is not one of {', '.join(('image/*', *others))}"
    )


def split_image(data: bytes) -> Sequence[ImageDecoder]:
    """Return the body as one image file."""
    return (partial(_decode, data),)


def split_npy(data: bytes) -> Sequence[ImageDecoder]:
    """Split a `.npy` file of one image, or of several with the same size.

    Raises:
        UnprocessableEntity: The array has another type or shape, or is damaged.
    """
    array = _read_npy(data)
    images = array if array.ndim == len("NHWC") else array[np.newaxis]
    return [partial(_fit, image) for image in images]


def split_json(data: bytes) -> Sequence[ImageDecoder]:
    """Split a JSON document with image files in base64.

    Raises:
        BadRequest: The document has another structure.
        RequestEntityTooLarge: Parsing it would take too much memory.
    """
    document = _parse(data, "the body")
    instances = document.get("instances") if isinstance(document, dict) else None
    if not isinstance(instances, list) or not instances:
        raise BadRequest('expected {"instances": [{"b64": "<an image file in base64>"}, ...]}')
    return [
        partial(_decode_instance, f"instance {number}", instance)
        for number, instance in enumerate(instances)
    ]


def split_json_lines(data: bytes) -> Sequence[ImageDecoder]:
    """Split lines with an image file in base64 each; an empty line is an image that fails.

    Raises:
        RequestEntityTooLarge: The body has too many lines.
    """
    # Lines are parsed later, one at a time.
    if data.count(b"\n") > BATCH_IMAGES:
        raise RequestEntityTooLarge(f"a request may have at most {BATCH_IMAGES} lines")
    lines = data.removesuffix(b"\n").split(b"\n")
    return [partial(_decode_line, f"line {number}", line) for number, line in enumerate(lines)]


def split_body(
    split: Splitter, data: bytes, *, max_images: int, has_error_records: bool
) -> Sequence[ImageDecoder]:
    """Split a body into at most `max_images` images.

    With `has_error_records`, a body that cannot be split becomes one image that fails.

    Raises:
        BadRequest, UnprocessableEntity: The body is empty or cannot be split.
        RequestEntityTooLarge: The body has more images.
    """
    try:
        if not data:
            raise BadRequest("the body is empty")
        images = split(data)
    except (BadRequest, UnprocessableEntity) as error:
        if not has_error_records:
            raise
        return [partial(_fail, error)]
    if len(images) > max_images:
        raise RequestEntityTooLarge(
            f"a request may have at most {max_images} images, got {len(images)}"
        )
    return images


def split_by_content(data: bytes) -> Sequence[ImageDecoder]:
    """Split a body by its first bytes: a `.npy` file, otherwise one image file."""
    return (split_npy if data.startswith(NPY_MAGIC) else split_image)(data)


SPLITTERS: Mapping[str, Splitter] = {
    **dict.fromkeys((*IMAGE_MEDIA_TYPES.values(), "image/jpg", ANY_IMAGE), split_image),
    NPY: split_npy,
    JSON: split_json,
    JSON_LINES: split_json_lines,
    "application/octet-stream": split_by_content,
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
        raise BadRequest(f'{name} is neither a base64 string nor {{"b64": "..."}}')
    try:
        # The program `base64` and Python's `encodebytes` insert line breaks.
        compact = text.encode("ascii").translate(None, WHITESPACE)
        return _decode(base64.b64decode(compact, validate=True), settings)
    except ValueError as error:
        raise BadRequest(f"{name} is not base64: {error}") from error
    except UnprocessableEntity as error:
        raise UnprocessableEntity(f"{name}: {error.description}") from error


def _parse(data: bytes, name: str) -> object:
    if sum(map(data.count, (b"[", b"{", b","))) > MAX_JSON_MARKS:
        if not JSON_START.match(data):
            raise BadRequest(f"{name} is not JSON: it starts with neither a bracket nor a brace")
        raise RequestEntityTooLarge(
            f"{name} has more than {MAX_JSON_MARKS} brackets, braces and commas, "
            "which images in base64 do not need"
        )
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"{name} is not JSON: {error}") from error


def _read_npy(data: bytes) -> Pixels:
    """Read an array without `numpy.load`, which allocates any shape that a header claims."""
    file = io.BytesIO(data)
    try:
        shape, is_fortran, dtype = NPY_HEADERS[np.lib.format.read_magic(file)](file)
        # Fails for numbers of thousands of digits, which an error message could not contain.
        np.array(shape, np.int64)
        count = math.prod(shape)
    except Exception as error:
        # NumPy evaluates the header as a Python literal; a damaged one raises any type of error.
        raise UnprocessableEntity("not a NumPy file of version 1.0 or 2.0, or damaged") from error
    # NumPy accepts `True` as a number.
    is_shape = len(shape) in {3, 4} and all(type(size) is int and size > 0 for size in shape)
    if dtype != np.uint8 or not is_shape or shape[-1] != len("RGB"):
        raise UnprocessableEntity(
            "a NumPy array must be uint8 of shape (height, width, 3) or (images, height, "
            f"width, 3), got {dtype} of shape {shape}"
        )
    if len(data) - file.tell() != count:
        raise UnprocessableEntity(
            f"the NumPy file's shape needs {count} bytes, found {len(data) - file.tell()}"
        )
    values = np.frombuffer(data, np.uint8, offset=file.tell())
    return values.reshape(shape, order="F" if is_fortran else "C")
