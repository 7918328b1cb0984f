"""Writes the generated documents of the settings file: `python -m image_classifier.settings`."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from image_classifier.settings.json_schema import json_schema
from image_classifier.settings.reference import markdown

DOCS = Path(__file__).resolve().parents[2] / "docs"

DOCUMENTS: Mapping[Path, Callable[[], str]] = {
    DOCS / "settings.schema.json": lambda: json.dumps(json_schema(), indent=2) + "\n",
    DOCS / "reference" / "settings.md": markdown,
}

if __name__ == "__main__":
    for path, text in DOCUMENTS.items():
        path.write_text(text(), encoding="utf-8")
