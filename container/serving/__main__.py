"""`python -m container.serving serve`: check the settings, then become gunicorn."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from container.classifier.errors import UserError
from container.serving.gpu import serves_batches
from container.serving.limits import allow_open_files, heartbeat_dir
from container.serving.settings import MIB, Settings

GUNICORN = (
    sys.executable,
    "-m",
    "gunicorn",
    "--config",
    "python:container.serving.server.gunicorn_conf",
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Check the settings, then serve until SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="serving", description="Serve the artifact in /opt/ml/model over HTTP."
    )
    parser.add_argument(
        "command",
        nargs="?",
        choices=["serve"],
        default="serve",
        help="the argument that SageMaker passes",
    )
    parser.parse_args(arguments)
    try:
        serves_batches(Settings.from_environment(os.environ))
        allow_open_files()
        heartbeat_dir()
    except UserError as error:
        sys.exit(f"serving: {error}")
    # By default glibc creates a memory arena for almost every thread, and never frees them.
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")
    # An image's memory is reused for the next one instead of returned to the system page by page.
    os.environ.setdefault("MALLOC_TOP_PAD_", str(64 * MIB))
    # exec, so that gunicorn is PID 1 and receives SageMaker's SIGTERM.
    os.execv(GUNICORN[0], GUNICORN)  # noqa: S606  its arguments are constants


if __name__ == "__main__":
    main()
