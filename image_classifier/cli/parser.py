"""The command line: options of every verb, and help texts that end with an example."""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from image_classifier.cli import completion
from image_classifier.cli.verbs import VERBS
from image_classifier.platform import argument_types
from image_classifier.settings.suggestion import suggestion

DESCRIPTION = "Train, tune, deploy and use image classifiers, on SageMaker or on this machine."

# Their options are those of `python -m image_classifier.preparation`.
PREPARATION = ("prepare", "audit", "upload")

# With a settings file, the others without one.
COMPLETION, DOCTOR = "completion", "doctor"
WITH_SETTINGS = tuple(
    name for name in VERBS if name not in {*PREPARATION, "init", DOCTOR, COMPLETION}
)

_CHANGING = "train tune pipeline register approve deploy predict transform explain delete"
_WAITING = "train tune deploy transform explain"
_LOCAL = "train tune deploy predict explain transform report logs debug delete"
_SET_HELP = "replace a value of the settings file, such as hyperparameters.epochs=3"
_EXPIRES_HELP = (
    "delete the endpoint after this time, such as 90m, 2h or 3d; `never` removes an earlier limit "
    "(on SageMaker)"
)
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}

# Docker's least CPUs of a container.
_MIN_CPUS = 0.01

# An endpoint can be deleted once it is in service, which takes minutes.
_MIN_EXPIRY, _MAX_EXPIRY = timedelta(minutes=15), timedelta(days=365)

_IN_CONTAINERS = "train tune deploy transform"
_WITH_LIMITS = "train tune deploy"
_JOB_HELP = "training job, or a model.tar.gz on S3 (default: the newest job's model)"
_LOCAL_JOB_HELP = "with --local a file, for a multi-model endpoint also a folder of them"
_TOP_HELP = "request and print only the N most probable classes (default: print 2)"
_CONTAINERS_HELP = (
    "with --local: run the container images (default: if a Docker engine has them, else processes)"
)
_INTERRUPT_HELP = "with --local: interrupt the training once, as a spot instance, and restart it"
_MEMORY_HELP = "with --local, of each container, such as 4g or 512m (default: no limit)"
_CPUS_HELP = "with --local, of each container, such as 2 or 0.5 (default: no limit)"


def parse(argv: Sequence[str], program: str) -> argparse.Namespace:
    """Parse a command line; exit with its help, or with code 2 if it is wrong."""
    chosen = next((argument for argument in argv if not argument.startswith("-")), None)
    parser = argparse.ArgumentParser(
        prog=program,
        description=DESCRIPTION,
        epilog=f"example: {program} train settings.toml --local\n"
        f"`{program} VERB --help` describes a verb, with an example.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"image-classifier {version()}")
    # For verbs without these options, or without settings.
    parser.set_defaults(local=False, dry_run=False, quiet=False, endpoint_kind=None)
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB")
    for name, verb in VERBS.items():
        subparsers.add_parser(
            name,
            help=verb.summary,
            description=f"{verb.summary[0].upper()}{verb.summary[1:]}.",
            epilog=f"example: {program} {name} {verb.example}\ndocumentation: docs/{verb.page}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            parents=_parents(name) if chosen in {name, COMPLETION} else [],
        )
    _add_options(subparsers.choices)
    _add_local_options(subparsers.choices)
    completion.add_options(subparsers.choices[COMPLETION], parser)
    command: Sequence[str] = []
    if chosen == DOCTOR and "--" in argv:
        # argparse would take options of the command for its own.
        end = list(argv).index("--")
        argv, command = argv[:end], argv[end + 1 :]
    if chosen in WITH_SETTINGS and "--local" in argv and chosen not in _LOCAL.split():
        verbs = ", ".join(_LOCAL.split())
        subparsers.choices[chosen].error(f"{chosen} has no --local, only {verbs} have it")
    if chosen is not None and chosen not in VERBS:
        parser.error(f"unknown verb {chosen!r}{suggestion(chosen, VERBS)}")
    arguments = parser.parse_args(argv)
    if command:
        arguments.command = command
    _check_places(parser, arguments)
    _check_local_options(parser, arguments)
    return arguments


def _check_places(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Exit if options are for SageMaker only, or for this machine only, or without a verb."""
    verb = arguments.verb
    if verb is None:
        parser.print_help(sys.stderr)
        parser.exit(2)
    if verb == "transform" and arguments.output is not None and not arguments.local:
        parser.error("--output needs --local: on SageMaker, results are below aws.bucket")
    if verb == "logs" and arguments.local and (arguments.follow or arguments.since):
        parser.error("--follow and --since are for SageMaker, and not for --local")
    if verb == "pipeline" and arguments.output and arguments.start:
        parser.error("--output creates no pipeline to start: remove it or --start")
    if verb == "deploy" and arguments.version is not None and (arguments.local or arguments.job):
        parser.error("--version is for SageMaker, instead of --job: remove --local and --job")
    if verb == "deploy" and arguments.expires is not None and arguments.local:
        parser.error("--expires is for SageMaker, and not for --local")


def _time(text: str) -> datetime:
    try:
        # Local time, unless an offset is given.
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        message = f"{text!r} is not a time such as 2026-11-29T10:15:00"
        raise argparse.ArgumentTypeError(message) from None


def _positive(text: str) -> int:
    if text.isascii() and text.isdecimal() and int(text):
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, got {text[:50]!r}")


def _cpus(text: str) -> float:
    if re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,9})?", text) and float(text) >= _MIN_CPUS:
        return float(text)
    message = f"{text[:50]!r} is not a number of CPUs of 0.01 or more, such as 2 or 0.5"
    raise argparse.ArgumentTypeError(message)


def _duration(text: str) -> timedelta:
    """Parse a length of time; `never` is 0."""
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)([mhd])", text)
    if text == "never":
        return timedelta(0)
    if match is not None:
        time = float(match[1]) * _UNITS[match[2]]
        if _MIN_EXPIRY <= time <= _MAX_EXPIRY:
            return time
    message = f"{text!r} is not a time of 15 minutes to 365 days, such as 90m, 2h or 3d, or never"
    raise argparse.ArgumentTypeError(message)


def version() -> str:
    """Return the installed version."""
    try:
        return metadata.version("image-classifier")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _parents(verb: str) -> list[argparse.ArgumentParser]:
    """Return the parser of a verb's options, where another module defines them."""
    if verb == "init":
        from image_classifier.cli import starter  # noqa: PLC0415 - Pillow is not always needed

        return [starter.parser()]
    if verb == DOCTOR:
        from image_classifier.cli import doctor  # noqa: PLC0415 - not always needed

        return [doctor.parser()]
    if verb in PREPARATION:
        # NumPy and Pillow take a second to import.
        from image_classifier.cli import data_set  # noqa: PLC0415

        return [data_set.parser(verb)]
    return []


def _add(
    parsers: Mapping[str, argparse.ArgumentParser],
    verbs: str,
    name: str,
    help_text: str,
    **options: Any,  # noqa: ANN401 - argparse's
) -> None:
    for verb in verbs.split():
        parsers[verb].add_argument(name, help=help_text, **options)


def _add_options(parsers: Mapping[str, argparse.ArgumentParser]) -> None:
    add, flag = partial(_add, parsers), partial(_add, parsers, action="store_true")
    every = " ".join(WITH_SETTINGS)
    add(every, "settings", "settings file (TOML)", type=Path, metavar="SETTINGS")
    add("predict", "images", "image files", type=Path, nargs="+", metavar="IMAGE")
    add("transform", "images", "s3://bucket/folder/; with --local a folder", metavar="SOURCE")
    output_help = "with --local: folder of the results (default: .launcher/NAME/transform)"
    add("transform", "--output", output_help, type=Path, metavar="FOLDER")
    images_help = "images or a folder of images; with --clarify s3://bucket/folder/"
    add("explain", "images", images_help, nargs="+", metavar="IMAGE")
    flag(every, "--quiet", "print only the result")
    override = {"metavar": "KEY=VALUE", "action": "append", "default": [], "dest": "overrides"}
    add(every, "--set", _SET_HELP, **override)
    flag(_CHANGING, "--dry-run", "validate and print the requests; send none that changes anything")
    add(
        _WAITING,
        "--no-wait",
        "return when SageMaker has started",
        dest="wait",
        action="store_false",
    )
    add("register explain", "--job", _JOB_HELP)
    add("deploy transform", "--job", f"{_JOB_HELP}; {_LOCAL_JOB_HELP}")
    add("approve", "--version", "version (default: the newest)", type=int, metavar="N")
    add("deploy", "--version", "an approved version of the registry", type=int, metavar="N")
    add("deploy", "--expires", _EXPIRES_HELP, type=_duration, metavar="TIME")
    flag("approve", "--reject", "reject the version")
    add("report debug logs", "--job", "training job (default: the newest one)")
    flag(_LOCAL, "--local", "run on this machine, without an account")
    add("deploy", "--port", "port of the local server (default: 8080)", type=argument_types.port)
    port_help = "port of the local server (default: that of `deploy --local`)"
    add("predict explain", "--port", port_help, type=argument_types.port)
    add(
        "train",
        "--from-tuning",
        "use this tuning job's best hyperparameters, except those of --set",
        metavar="JOB",
    )
    add("predict", "--top", _TOP_HELP, type=_positive, metavar="N")
    flag("predict debug", "--json", "print complete responses as JSON")
    flag("check cost report status", "--json", "print the result as JSON")
    flag("logs", "--json", "print a JSON object per line of the log: time, host, message")
    add("predict explain", "--model", "model of a multi-model endpoint", metavar="NAME")
    clarify_help = (
        "use a SageMaker Clarify job (closed to new accounts): all class names, in model order"
    )
    add("explain", "--clarify", clarify_help, nargs="+", metavar="CLASS")
    flag("check", "--account", "check quotas, role, bucket, container images and data on AWS too")
    flag("logs", "--follow", "print new lines until the job ends (on SageMaker)")
    since_help = "print only lines from this time on, such as 2026-11-29T10:15:00 (on SageMaker)"
    add("logs", "--since", since_help, type=_time, metavar="TIME")
    flag("logs", "--endpoint", "the endpoint's log, or with --local the server's")
    add("debug", "--rules", "names of rules, separated by commas (default: all)", metavar="NAMES")
    flag("report", "--no-open", "only print the reports' paths")
    flag("delete", "--yes", "do not ask for confirmation")
    flag("delete", "--keep-output", "keep job output on S3: models, reports")
    flag("pipeline", "--start", "start an execution of the pipeline")
    definition_help = "write the pipeline's definition (JSON) there, and create nothing"
    add("pipeline", "--output", definition_help, type=Path, metavar="FILE")
    add("cost", "--hours", "of one training job (default: %(default)s)", type=float, default=1.0)


def _add_local_options(parsers: Mapping[str, argparse.ArgumentParser]) -> None:
    add = partial(_add, parsers)
    choose = partial(add, _IN_CONTAINERS, dest="in_containers", action="store_const")
    choose("--containers", _CONTAINERS_HELP, const=True)
    choose("--processes", "with --local: run plain processes", const=False)
    add(_WITH_LIMITS, "--memory", _MEMORY_HELP, type=argument_types.memory, metavar="SIZE")
    add(_WITH_LIMITS, "--cpus", _CPUS_HELP, type=_cpus, metavar="N")
    add("train", "--interrupt-after", _INTERRUPT_HELP, type=_positive, metavar="SECONDS")


def _check_local_options(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    if arguments.local:
        return
    if getattr(arguments, "in_containers", None) is not None:
        parser.error("--containers and --processes need --local")
    if getattr(arguments, "interrupt_after", None) is not None:
        parser.error("--interrupt-after needs --local")
    # `doctor` has a memory limit, too, and no --local.
    if hasattr(arguments, "cpus") and (arguments.memory or arguments.cpus):
        parser.error(
            "--memory and --cpus need --local: on SageMaker, the instance type limits both"
        )
