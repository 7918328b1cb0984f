"""Media types and a header of requests and responses; suffixes and formats of image files."""

from collections.abc import Mapping

# The images that are accepted, by the suffix of their files.
IMAGE_MEDIA_TYPES: Mapping[str, str] = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".jpe": "image/jpeg",
    ".jfif": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".bmp": "image/bmp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".avif": "image/avif",
    ".heic": "image/heif",
    ".heif": "image/heif",
}
IMAGE_SUFFIXES = frozenset(IMAGE_MEDIA_TYPES)

# Their formats by Pillow's names: common ones only, because each decoder is an attack surface.
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")

ANY_IMAGE, NPY = "application/x-image", "application/x-npy"
JSON, JSON_LINES, CSV = "application/json", "application/jsonlines", "text/csv"

# The model that the client of a multi-model endpoint requests; SageMaker derives the name.
TARGET_MODEL = "X-Amzn-SageMaker-Target-Model"

# Responses can have these, in the server's order of preference.
RESPONSE_MEDIA_TYPES = (JSON, JSON_LINES, CSV)
