"""Images as they are sent, and answers as they come back."""

import json
from pathlib import Path
from typing import Any

from container.classifier.errors import UserError
from container.classifier.vocabulary import IMAGE_MEDIA_TYPES

# What a real-time endpoint takes.
MAX_BYTES = 6 * 1024 * 1024


def read_image(image: Path) -> tuple[bytes, str]:
    """Return an image's file and its media type.

    Raises:
        UserError: it cannot be read, is none by its name, or is too large for an endpoint.
    """
    media_type = IMAGE_MEDIA_TYPES.get(image.suffix.lower())
    if media_type is None:
        message = f"{image} is no image by its name: {', '.join(IMAGE_MEDIA_TYPES)}"
        raise UserError(message)
    try:
        body = image.read_bytes()
    except OSError as error:
        message = f"{image} cannot be read: {error.strerror}"
        raise UserError(message) from None
    if len(body) > MAX_BYTES:
        size = f"{len(body) / 1e6:.1f} MB"
        message = f"{image} has {size}, an endpoint takes 6.2: make it smaller, or `transform`"
        raise UserError(message)
    return body, media_type


def decode_response(body: bytes) -> dict[str, Any]:
    """Return the server's answer.

    Raises:
        UserError: it is an error, or none of our server's answers.
    """
    try:
        answer: dict[str, Any] = json.loads(body)
        if answer["predictions"][0]["class_name"] and answer["class_names"]:
            return answer
    except (ValueError, LookupError, TypeError):
        pass
    message = f"not an answer of the server: {body[:300].decode(errors='replace')}"
    raise UserError(message)


def format_line(image: Path, answer: dict[str, Any]) -> str:
    """Return one image's answer for a person."""
    best = answer["predictions"][0]
    return f"{image}: {best['class_name']} ({best['probability']:.1%})"
