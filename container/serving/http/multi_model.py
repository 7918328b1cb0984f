"""The HTTP side of a multi-model endpoint, where the platform loads and unloads models.

| request | answer |
|---|---|
| `POST /models` with `{"model_name": "...", "url": "..."}` | loads; 409: is loaded; 507: no room |
| `GET /models?limit=100&next_page_token=...` | lists by name, 100 or fewer at a time |
| `GET /models/NAME` | returns the url it was loaded from |
| `DELETE /models/NAME` | unloads; answers when the memory is free |
| `POST /models/NAME/invoke` | as `/invocations`, which does not exist here |

A name that is not loaded is 404.
"""

import json
from collections.abc import Mapping

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import BadRequest

from container.serving.http.app import answer_images, new_app
from container.serving.http.body import read_body
from container.serving.model.pool import Pool
from container.serving.model.registry import Registry
from container.serving.settings import Settings

MOST_ON_A_PAGE = 100

# Percent-encoded it must fit into the line of a request, 4 KB.
MAX_NAME_BYTES = 1024


def create_multi_model_app(registry: Registry, settings: Settings, pool: Pool) -> Flask:
    """Make the application, which is ready at once: no model is loaded at the start."""
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
            "models": [_model(*each) for each in listed[first : first + limit]]
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
        # Before the body is read; that it is still loaded afterwards is for `borrow` to see.
        registry.url(model_name)
        return answer_images(settings, pool, registry.borrow(model_name))

    return app


def _model(name: str, url: str) -> Mapping[str, str]:
    return {"modelName": name, "modelUrl": url}


def _read_load(data: bytes) -> tuple[str, str]:
    """Return name and url."""
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
        # Half of a pair of surrogates is no character, and no request could name it.
        size = 0
    if not 0 < size <= MAX_NAME_BYTES or "/" in name:
        raise BadRequest(
            f"model_name must have 1 to {MAX_NAME_BYTES} bytes of UTF-8 without a slash"
        )
    return name, url


def _page() -> tuple[int, int]:
    """Return the first model's number and the page's length, as the query has them."""
    try:
        first = int(request.args.get("next_page_token", "0"))
        limit = int(request.args.get("limit", str(MOST_ON_A_PAGE)))
    except ValueError:
        first, limit = 0, 0
    if first < 0 or limit < 1:
        raise BadRequest("limit must be a number from 1, next_page_token one that we gave")
    return first, min(limit, MOST_ON_A_PAGE)
