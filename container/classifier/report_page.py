"""The HTML page of a report: one file in the style of all reports, which loads nothing."""

import base64
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

FOLDER = Path(__file__).parent

# Colors of explanations: what raises a class's score, and what lowers it. The package shap's.
RAISES, LOWERS = (255, 0, 81), (0, 139, 251)


def read_stylesheet() -> str:
    """Return the stylesheet of all reports and of the server's page."""
    return (FOLDER / "report.css").read_text(encoding="utf-8").strip()


def template(path: Path, **filters: Callable[..., object]) -> Template:
    """Return the Jinja template of a report, which extends base.html.jinja."""
    environment = Environment(
        loader=FileSystemLoader([path.parent, FOLDER]),
        # Names of classes, files and endpoints may contain HTML.
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": lambda fraction: f"{100 * fraction:.1f}",
        "thousands": lambda count: f"{count:,}",
        **filters,
    }
    environment.globals["stylesheet"] = Markup(read_stylesheet())  # noqa: S704 - a constant
    environment.globals["date"] = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return environment.get_template(path.name)


def data_uri(data: bytes, kind: str) -> str:
    """Return an image file of a kind such as `png` as a URL that contains it."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
