"""Bodies of requests, for tests of serving."""

import base64
import io
import json
from collections.abc import Iterator

import numpy as np

from container.classifier.preprocessing import Pixels
from tests.artifacts import encode, random_pixels

PIXELS = random_pixels()
PNG = encode(PIXELS)
JPEG = encode(PIXELS, "JPEG")
WEBP = encode(PIXELS, "WEBP")


def npy(array: Pixels) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def instances(*images: bytes) -> bytes:
    return json.dumps(
        {"instances": [{"b64": base64.b64encode(data).decode()} for data in images]}
    ).encode()


def lines(*images: bytes) -> bytes:
    return b"".join(b'{"b64": "%s"}\n' % base64.b64encode(data) for data in images)


def in_chunks(data: bytes, size: int = 1000) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))
