"""A healthy WSGI program whose workers take seconds to start, while gunicorn listens already."""

import time
from collections.abc import Callable, Iterable, Mapping

# Longer than a ping may take.
time.sleep(2.5)


def app(
    environment: Mapping[str, str], start_response: Callable[[str, list[tuple[str, str]]], object]
) -> Iterable[bytes]:
    if environment["PATH_INFO"] == "/ping":
        start_response("200 OK", [])
        return []
    start_response("415 Unsupported Media Type", [("Content-Type", "application/json")])
    return [b'{"error": "only application/x-own"}']
