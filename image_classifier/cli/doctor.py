"""`doctor`: what SageMaker would reject in a container image or a program."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from container.classifier.errors import UserError
from image_classifier.platform import argument_types
from image_classifier.platform.doctor.cases import SERVE, TRANSFORM
from image_classifier.platform.doctor.diagnosis import EXAMINERS, diagnose
from image_classifier.platform.doctor.examination import GIB, Options, TimeLimits
from image_classifier.platform.doctor.load_settings import LABEL, Setting, parse

FOUND, CANNOT_RUN = 1, 2

_P99 = 0.5


def parser() -> argparse.ArgumentParser:
    """Return the options of the verb, for a parser that has them as its parent."""
    parent = argparse.ArgumentParser(add_help=False)
    add = parent.add_argument
    add("image", nargs="?", metavar="IMAGE", help="container image; or a command after --")
    add(
        "--role",
        choices=[*EXAMINERS],
        default=SERVE,
        help="what it is used for (default: %(default)s)",
    )
    add("--model", type=Path, metavar="PATH", help="folder or .tar.gz for /opt/ml/model")
    add("--data", type=Path, metavar="FOLDER", help="folder of channels for /opt/ml/input/data")
    add(
        "--hyperparameters",
        type=argument_types.pair,
        metavar="NAME=VALUE",
        nargs="+",
        default=[],
        help="of the training job",
    )
    add("--request", type=Path, metavar="FILE", help="body of a valid request")
    add("--content-type", metavar="TYPE", help="of --request (default: by its suffix)")
    add(
        "--env",
        type=argument_types.pair,
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="environment variable of the program",
    )
    add(
        "--memory",
        type=argument_types.memory,
        default=4 * GIB,
        metavar="SIZE",
        help="memory limit, such as 512m or 4g (default: 4g)",
    )
    add(
        "--port",
        type=argument_types.port,
        default=Options().port,
        help="port of a command, which gets it as SAGEMAKER_BIND_TO_PORT (default: %(default)s)",
    )
    _add_times(add)
    _add_load_and_report(add)
    parent.set_defaults(run=run, command=[], failure_code=CANNOT_RUN)
    return parent


def _add_times(add: Callable[..., object]) -> None:
    add(
        "--startup-timeout",
        type=float,
        default=TimeLimits().startup,
        metavar="SECONDS",
        help="time until /ping returns 200 (default: %(default)s; SageMaker waits 480)",
    )
    add(
        "--watch",
        type=float,
        default=TimeLimits().watch,
        metavar="SECONDS",
        help="how long /ping is watched after its first 200 (default: %(default)s)",
    )


def _add_load_and_report(add: Callable[..., object]) -> None:
    add(
        "--load",
        action="store_true",
        help="find the highest rate of requests with p99 below --p99 (roles serve and transform)",
    )
    add(
        "--p99",
        type=float,
        default=_P99,
        metavar="SECONDS",
        help="limit of the 99th percentile of response times for --load (default: %(default)s)",
    )
    add(
        "--setting",
        type=_setting,
        action="append",
        default=[],
        metavar="NAME=VALUE,...",
        help="workers and threads for --load to compare; several times (default: those in the "
        f"label {LABEL} of the container image)",
    )
    add("--skip", nargs="+", default=[], metavar="ID", help="cases that are not checked")
    add("--json", action="store_true", help="print the report as JSON")
    add("--junit", type=Path, metavar="FILE", help="write the report as JUnit's XML, too")
    add("--quiet", action="store_true", help="print only the report")


def run(arguments: argparse.Namespace) -> None:
    """Examine the target, and print the report.

    Raises:
        UserError: the target cannot be examined.
        SystemExit: cases failed.
    """
    command: Sequence[str] = arguments.command
    if (arguments.image is None) == (not command):
        raise UserError("give either a container image, or a command after --")
    if arguments.load and arguments.role not in {SERVE, TRANSFORM}:
        raise UserError(f"--load is for the roles {SERVE} and {TRANSFORM}, not {arguments.role}")
    if not arguments.quiet:
        print(f"examining {arguments.image or command[0]} as {arguments.role}", file=sys.stderr)
    report = diagnose(
        arguments.image,
        command,
        arguments.role,
        options=_options(arguments),
        limits=TimeLimits(startup=arguments.startup_timeout, watch=arguments.watch),
        ignored=arguments.skip,
    )
    if arguments.junit is not None:
        arguments.junit.parent.mkdir(parents=True, exist_ok=True)
        arguments.junit.write_text(report.junit(f"doctor --role {arguments.role}"))
    print(report.json() if arguments.json else report.text(), flush=True)
    if report.failed:
        raise SystemExit(FOUND)


def _options(arguments: argparse.Namespace) -> Options:
    request: Path | None = arguments.request
    if arguments.data is not None and not any(arguments.data.glob("*/")):
        raise UserError(f"no folder in {arguments.data}: --data takes a folder of channels")
    if arguments.model is not None and not arguments.model.exists():
        raise UserError(f"no file or folder {arguments.model}: --model takes an existing one")
    return Options(
        model=arguments.model,
        data=arguments.data,
        hyperparameters=dict(arguments.hyperparameters),
        request=None if request is None else request.read_bytes(),
        content_type=arguments.content_type or _media_type(request),
        variables=dict(arguments.env),
        port=arguments.port,
        memory=arguments.memory,
        settings=arguments.setting,
        p99=arguments.p99 if arguments.load else None,
    )


def _media_type(request: Path | None) -> str:
    import mimetypes  # noqa: PLC0415 - reads the system's files

    guessed = mimetypes.guess_type(request.name)[0] if request else None
    return guessed or "application/octet-stream"


def _setting(text: str) -> Setting:
    try:
        return parse(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
