"""`python -m container.serving serve`: check the settings, then become gunicorn."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from container.classifier.errors import UserError
from container.serving.gpu import serves_batches
from container.serving.limits import allow_open_files
from container.serving.settings import Settings

GUNICORN = (
    sys.executable,
    "-m",
    "gunicorn",
    "--config",
    "python:container.serving.server.gunicorn_conf",
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Check, then serve until SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="serving", description="Serve the artifact in /opt/ml/model over HTTP."
    )
    parser.add_argument(
        "command", nargs="?", choices=["serve"], default="serve", help="what SageMaker calls it"
    )
    parser.parse_args(arguments)
    try:
        serves_batches(Settings.from_environment(os.environ))
        allow_open_files()
    except UserError as error:
        sys.exit(f"serving: {error}")
    # By itself the C library makes an arena of memory for almost every thread, and keeps them.
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")
    # In this process's place: gunicorn is PID 1 then and gets SageMaker's SIGTERM itself.
    os.execv(GUNICORN[0], GUNICORN)  # noqa: S606  its arguments are constants


if __name__ == "__main__":
    main()
