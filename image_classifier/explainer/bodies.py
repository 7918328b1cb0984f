"""Images as the bodies of requests, in Clarify's three content types and in JSON."""

import base64
import io
import json

import numpy as np
from PIL import Image

from container.classifier.preprocessing import Pixels
from container.classifier.vocabulary import JSON, NPY
from image_classifier.explainer.analysis import JPEG, PNG

# Types of which one body may hold several images, where the endpoint takes that.
OF_MANY = (NPY, JSON)


def encode(images: Pixels, content_type: str) -> bytes:
    """Return the body for images (N, H, W, 3); of a type for one image N is 1."""
    if content_type == JSON:
        files = [base64.b64encode(_file(image, "PNG")).decode() for image in images]
        return json.dumps({"instances": files}).encode()
    if content_type == NPY:
        file = io.BytesIO()
        # One image is sent as Clarify does: H x W x 3.
        np.save(file, images if len(images) > 1 else images[0], allow_pickle=False)
        return file.getvalue()
    return _file(images[0], {JPEG: "JPEG", PNG: "PNG"}[content_type])


def _file(image: Pixels, file_format: str) -> bytes:
    file = io.BytesIO()
    # The edges of super-pixels are to survive; PNG, which keeps all, is to be quick.
    settings = {"JPEG": {"quality": 95, "subsampling": 0}, "PNG": {"compress_level": 1}}
    Image.fromarray(image).save(file, file_format, **settings[file_format])
    return file.getvalue()
