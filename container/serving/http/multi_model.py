"""Routes of a multi-model endpoint, where SageMaker loads and unloads models.

| request | response |
|---|---|
| `POST /models` with `{"model_name": "...", "url": "..."}` | loads; 409: loaded; 507: no memory |
| `GET /models?limit=100&next_page_token=...` | lists by name, at most 100 per page |
| `GET /models/NAME` | returns the URL that it was loaded from |
| `DELETE /models/NAME` | unloads; responds when its memory is free |
| `POST /models/NAME/invoke` | predicts, like `/invocations` of a single-model endpoint |

The response is 404 if no model of that name is loaded.
"""

import json
from collections.abc import Mapping

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import BadRequest

from container.serving.http.app import new_app, predict_images
from container.serving.http.body import read_body
from container.serving.model.pool import Pool
from container.serving.model.registry import Registry
from container.serving.settings import Settings

MAX_PAGE_SIZE = 100

# Percent-encoded, a name must fit into a request line, 4 KB.
MAX_NAME_BYTES = 1024


def create_multi_model_app(registry: Registry, settings: Settings, pool: Pool) -> Flask:
    """Create the application. It is ready at once, without a model."""
    app = new_app(settings)

    @app.get("/ping")
    def ping() -> Response:
        return Response()

    @app.post("/models")
    def load() -> Response:
        data = read_body(request, settings.max_body_bytes, settings.timeout_seconds)
        name, url = _read_load(data)
        registry.load(name, url)
        return jsonify(_model(name, url))

    @app.get("/models")
    def models() -> Response:
        first, limit = _page()
        listed = registry.names_and_urls()
        document: dict[str, object] = {
            "models": [_model(name, url) for name, url in listed[first : first + limit]]
        }
        if len(listed) > first + limit:
            document["nextPageToken"] = str(first + limit)
        return jsonify(document)

    @app.get("/models/<model_name>")
    def model(model_name: str) -> Response:
        return jsonify(_model(model_name, registry.url(model_name)))

    @app.delete("/models/<model_name>")
    def unload(model_name: str) -> Response:
        return jsonify(_model(model_name, registry.unload(model_name)))

    @app.post("/models/<model_name>/invoke")
    def invoke(model_name: str) -> Response:
        # Reject before the body is read; `borrow` checks again afterwards.
        registry.url(model_name)
        return predict_images(settings, pool, registry.borrow(model_name))

    return app


def _model(name: str, url: str) -> Mapping[str, str]:
    return {"modelName": name, "modelUrl": url}


def _read_load(data: bytes) -> tuple[str, str]:
    """Return the name and the URL of a load request."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    found = document if isinstance(document, dict) else {}
    name, url = found.get("model_name"), found.get("url")
    if not (isinstance(name, str) and isinstance(url, str)):
        raise BadRequest('expected {"model_name": "...", "url": "..."}')
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        # A lone surrogate cannot be encoded, so no later request could contain the name.
        size = 0
    if not 0 < size <= MAX_NAME_BYTES or "/" in name:
        raise BadRequest(
            f"model_name must have 1 to {MAX_NAME_BYTES} bytes of UTF-8 without a slash"
        )
    return name, url


def _page() -> tuple[int, int]:
    """Return the index of the first model and the page size, from the query."""
    try:
        first = int(request.args.get("next_page_token", "0"))
        limit = int(request.args.get("limit", str(MAX_PAGE_SIZE)))
    except ValueError:
        first, limit = 0, 0
    if first < 0 or limit < 1:
        raise BadRequest("limit must be 1 or more, and next_page_token one from a response")
    return first, min(limit, MAX_PAGE_SIZE)
