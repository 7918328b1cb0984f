"""Split a request body into images and decode them to pixels. Independent of Flask.

| first bytes, or Content-Type | body | images |
|---|---|---|
| of an image, or of one in base64 | an image file | 1 |
| of a `.npy` file | uint8 (H, W, 3) or (N, H, W, 3), RGB | 1 or N |
| `multipart/form-data` | files of a form, each an image file | N |
| `application/json`, or `{` | `{"instances": [...]}`: base64 strings or objects of images | N |
| `application/jsonlines`, `application/x-ndjson` | N lines, each a base64 string or an object | N |

An object is `{"b64": "..."}`, or has one such object, as in TensorFlow Serving, or has the string
under another usual key. A string may be a data URL. The first bytes decide before the Content-Type.
URLs in a request are not fetched. Splitting is fast; images are decoded later, in parallel. An
image that cannot be read does not fail the others.
"""

import base64
import json
import re
from collections.abc import Sequence
from functools import partial

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
from container.classifier.image_files import image_format
from container.classifier.media_types import ANY_IMAGE, IMAGE_FORMATS, JSON, JSON_LINES, NPY
from container.classifier.preprocessing import (
    Pixels,
    Preprocessing,
    fit,
    preprocess,
)
from container.serving.http.forms import FORM, read_files
from container.serving.http.npy import MAGIC, read_npy
from container.serving.http.unpacking import unpack
from container.serving.model.outcome import ImageDecoder
from container.serving.settings import BATCH_IMAGES

# Brackets, braces and commas in a JSON document: 64 images need 129, and base64 has none. Parsing
# 25 MB of them takes 650 MB.
MAX_JSON_MARKS = 1000
JSON_START = re.compile(rb"\s*[\[{]")
JSON_OBJECT = re.compile(rb"\s*\{")

JSON_TYPES = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    type(None): "null",
}

JSON_LINES_TYPES = frozenset(
    {
        JSON_LINES,
        *(f"application/{name}" for name in ("jsonl", "ndjson", "x-jsonlines", "x-ndjson")),
    }
)

# Sent for a body of any kind, curl's default and that of SageMaker's SDK among them.
UNSPECIFIC_TYPES = frozenset(
    {
        "",
        ANY_IMAGE,
        "application/octet-stream",
        "binary/octet-stream",
        "application/x-www-form-urlencoded",
        "file-path/raw-bytes",
    }
)

# Keys of a string in an instance, among them those of TensorFlow Serving and TorchServe.
TEXT_KEYS = ("b64", "data", "body", "image", "image_bytes")

# Starts of a JPEG, a PNG, a GIF and a WebP file in base64, as clients send it that must send text.
BASE64_IMAGE = re.compile(rb"\s*(data:image/|/9j/|iVBORw0KGgo|R0lGODl|R0lGODd|UklGR)")

WHITESPACE = b" \t\r\n"
URL_SAFE = bytes.maketrans(b"-_", b"+/")
DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)


def split_image(data: bytes) -> Sequence[ImageDecoder]:
    """Return the body as one image file, which can be in base64."""
    if BASE64_IMAGE.match(data):
        return (partial(_decode_instance, "the body", data.decode("latin-1")),)
    return (partial(_decode, data),)


def split_npy(data: bytes) -> Sequence[ImageDecoder]:
    """Split a `.npy` file of one image, or of several with the same size.

    Raises:
        UnprocessableEntity: The array has another type or shape, or is damaged.
    """
    array = read_npy(data)
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
        raise BadRequest(
            'expected {"instances": [{"b64": "<an image file in base64>"}, ...]}, '
            f"got {_described(document)}"
        )
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
    data: bytes,
    content_type: str | None,
    *,
    max_bytes: int,
    max_images: int,
    has_error_records: bool,
) -> Sequence[ImageDecoder]:
    """Split a body into images.

    Args:
        data: The body, which gzip or zstd may have packed.
        content_type: Of the request.
        max_bytes: Limit of the unpacked body.
        max_images: Limit of the images.
        has_error_records: A body that cannot be split becomes one image that fails.

    Raises:
        BadRequest, UnprocessableEntity: The body is empty or cannot be split.
        RequestEntityTooLarge: The body exceeds a limit.
        UnsupportedMediaType: Neither the first bytes nor the Content-Type are known.
    """
    try:
        if not data:
            raise BadRequest("the body is empty")
        images = _split(content_type or "", unpack(data, max_bytes))
    except (BadRequest, UnprocessableEntity) as error:
        if not has_error_records:
            raise
        return [partial(_fail, error)]
    if len(images) > max_images:
        raise RequestEntityTooLarge(
            f"a request may have at most {max_images} images, got {len(images)}"
        )
    return images


def split_form(data: bytes, content_type: str) -> Sequence[ImageDecoder]:
    """Split a form into the images in its files.

    Raises:
        BadRequest, RequestEntityTooLarge: see `read_files`.
    """
    files = read_files(data, content_type)
    return [partial(_decode_named, f"file {number}", file) for number, file in enumerate(files)]


def _split(content_type: str, data: bytes) -> Sequence[ImageDecoder]:
    """Split a body by its first bytes, else by its Content-Type.

    Raises:
        UnsupportedMediaType: neither is known.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if image_format(data) in IMAGE_FORMATS:
        return split_image(data)
    if data.startswith(MAGIC) or media_type == NPY:
        return split_npy(data)
    if media_type == FORM:
        return split_form(data, content_type)
    if media_type in JSON_LINES_TYPES:
        return split_json_lines(data)
    if media_type == JSON or media_type.endswith("+json") or JSON_OBJECT.match(data):
        return split_json(data)
    is_text = media_type == "text/plain" and BASE64_IMAGE.match(data)
    if is_text or media_type in UNSPECIFIC_TYPES or media_type.startswith("image/"):
        # The error names the known formats.
        return split_image(data)
    known = ("image/*", ANY_IMAGE, NPY, FORM, JSON, JSON_LINES)
    raise UnsupportedMediaType(
        f"Content-Type {media_type[:60]!r} is not one of {', '.join(known)}, "
        "and the body is not an image"
    )


def _described(document: object) -> str:
    """Return what a JSON document has instead of instances."""
    if isinstance(document, dict) and "instances" not in document:
        keys = ", ".join(json.dumps(key[:30]) for key in [*document][:3])
        return f"an object with {keys or 'no keys'}"
    found = document["instances"] if isinstance(document, dict) else document
    what = "an empty array" if found == [] else JSON_TYPES.get(type(found), "a number")
    return f'{what} as "instances"' if isinstance(document, dict) else what


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
    text = _text_of(instance)
    if text is None:
        raise BadRequest(f'{name} is neither a base64 string nor {{"b64": "..."}}')
    try:
        start = DATA_URL.match(text)
        # The program `base64` and Python's `encodebytes` insert line breaks.
        compact = text[start.end() if start else 0 :].encode("ascii")
        compact = compact.translate(URL_SAFE, WHITESPACE)
        data = base64.b64decode(compact + b"=" * (-len(compact) % 4), validate=True)
    except ValueError as error:
        raise BadRequest(f"{name} is not base64: {error}") from error
    return _decode_named(name, data, settings)


def _text_of(instance: object) -> str | None:
    """Return the base64 of an instance: a string, `{"b64": ...}`, or `{NAME: {"b64": ...}}`."""
    if isinstance(instance, dict):
        inner = [value for value in instance.values() if isinstance(value, dict)]
        instance = inner[0] if len(inner) == 1 and "b64" not in instance else instance
        texts = [instance[key] for key in TEXT_KEYS if key in instance]
        instance = texts[0] if len(texts) == 1 else None
    return instance if isinstance(instance, str) else None


def _decode_named(name: str, data: bytes, settings: Preprocessing) -> Pixels:
    try:
        return _decode(data, settings)
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
