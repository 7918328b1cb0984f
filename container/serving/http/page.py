"""The web page for trying images; it sends requests to this server only."""

import base64
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from flask import Flask, Response, jsonify
from werkzeug.exceptions import NotFound

from container.classifier.artifact import GOLDEN
from container.classifier.media_types import IMAGE_SUFFIXES
from container.classifier.report_page import read_stylesheet
from container.serving.model.predictor import Predictor

PAGE = Path(__file__).with_name("page.html")

# A comment in the page, which the stylesheet replaces.
STYLESHEET = "/* report.css */"

MAX_EXAMPLES = 12


def add_page(app: Flask, model_dir: Path, predictor: Callable[[], Predictor]) -> None:
    """Add the page on `/`, and what it shows of the model.

    | request | response |
    |---|---|
    | `GET /examples` | `class_names`, and `images`: the URLs of golden images |
    | `GET /examples/NUMBER` | the golden image's file |

    All respond 503 while `predictor` is being loaded, except the page.
    """

    @app.get("/")
    def page() -> Response:
        return read_page()

    @app.get("/examples")
    def examples() -> Response:
        names = predictor().class_names
        urls = [f"examples/{number}" for number in range(len(golden_images(model_dir)))]
        return jsonify(class_names=list(names), images=urls)

    @app.get("/examples/<int:number>")
    def example(number: int) -> Response:
        predictor()
        paths = golden_images(model_dir)
        if number >= len(paths):
            raise NotFound(f"there is no example {number}: the model has {len(paths)}")
        # Not the type of an image: a browser must show it in the page only.
        response = Response(paths[number].read_bytes(), content_type="application/octet-stream")
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def golden_images(model_dir: Path) -> Sequence[Path]:
    """Return the golden images of an artifact, at most MAX_EXAMPLES; links are left out."""
    paths = sorted((model_dir / GOLDEN).glob("*"))
    images = [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES]
    return [path for path in images if path.is_file() and not path.is_symlink()][:MAX_EXAMPLES]


def read_page() -> Response:
    """Return the page, with a policy that allows only its own script."""
    text = PAGE.read_text(encoding="utf-8").replace(STYLESHEET, read_stylesheet())
    script = text.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    response = Response(text, content_type="text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
