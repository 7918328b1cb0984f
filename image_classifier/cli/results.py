"""Output of verbs: predictions, logs and pages."""

import argparse
import json
import sys
import webbrowser
from collections.abc import Callable, Iterable
from pathlib import Path

from container.classifier.errors import UserError
from image_classifier.platform import predictions
from image_classifier.sagemaker.aws import Response
from image_classifier.sagemaker.logs import Line
from image_classifier.settings.settings_file import SettingsFile

# Folder of everything that runs on this machine, beside the settings file: results do not depend
# on the working directory.
LOCAL_RUNS = Path(".launcher")

# Classes in a line about an image.
DEFAULT_TOP = 2


def folder_of(file: SettingsFile) -> Path:
    """Return the folder of everything that settings make on this machine."""
    return file.path.parent / LOCAL_RUNS / file.settings.name


def print_predictions(
    responses: Iterable[tuple[Path, Response]], arguments: argparse.Namespace
) -> None:
    """Print each image's class and the next best ones, or with --json its complete response.

    Raises:
        UserError: images were rejected; their lines have the reasons.
    """
    count = rejected = 0
    for image, response in responses:
        count += 1
        rejected += "error" in response
        document = response if "predictions" in response else {"predictions": [response]}
        texts = predictions.lines(str(image), document, arguments.top or DEFAULT_TOP)
        lines = [json.dumps(response)] if arguments.json else texts
        for line in lines:
            print(line, flush=True)
    if rejected:
        verb = "was" if rejected == 1 else "were"
        raise UserError(f"{rejected} of {count} images {verb} rejected")


def print_log(
    lines: Iterable[Line],
    arguments: argparse.Namespace,
    texts: Callable[[Line], Iterable[str]] = lambda line: [str(line)],
) -> None:
    """Print the lines of a log, with --json an object each; `texts` formats a line."""
    for line in lines:
        for text in [json.dumps(line.document())] if arguments.json else texts(line):
            print(text, flush=True)


def open_pages(pages: Iterable[Path], arguments: argparse.Namespace) -> None:
    """Print the paths of pages; open them in the browser unless --no-open is given."""
    pages = list(pages)
    if arguments.json:
        print(json.dumps(list(map(str, pages))))
    for page in pages:
        if not arguments.json:
            print(page)
        if not (arguments.no_open or webbrowser.open(page.resolve().as_uri())):
            print(f"no browser was found: open {page}", file=sys.stderr)
