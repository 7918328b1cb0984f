"""Run a verb: exit codes, interruptions, closed pipes, and the next step.

Exit codes of every verb: 0 success; 1 a mistake, with its reason on stderr; 2 wrong usage; 130
interrupted; 141 the reader of stdout ended, as for every program in a shell's pipe. `doctor`
returns 1 if it found failures, and 2 for a mistake.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import partial

from container.classifier.errors import UserError
from image_classifier.cli import on_sagemaker, on_this_machine, parser
from image_classifier.cli.verbs import PROGRAM, VERBS
from image_classifier.sagemaker.aws import Aws
from image_classifier.settings import placeholders, settings_file
from image_classifier.settings.settings_file import SettingsError

DONE, MISTAKE, INTERRUPTED, CLOSED_PIPE = 0, 1, 130, 141


def main(argv: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Run a verb; return the exit code."""
    try:
        try:
            return _run(sys.argv[1:] if argv is None else argv, program)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Python would flush stdout again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE


def _run(argv: Sequence[str], program: str) -> int:
    arguments = parser.parse(argv, program)
    for stream in (sys.stdout, sys.stderr):
        # File names can contain bytes that are not UTF-8.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        if "run" in arguments:
            result = _run_without_settings(arguments)
        else:
            result = _run_with_settings(arguments)
    except BrokenPipeError:
        raise
    except SettingsError as error:
        # Each line begins with the file and the line of a mistake, as editors read them.
        print(error, file=sys.stderr)
        if arguments.verb == "check" and arguments.json:
            mistakes = str(error).splitlines()
            print(json.dumps({"file": str(arguments.settings), "mistakes": mistakes, "note": None}))
        return MISTAKE
    except UserError as error:
        reason = str(error)
    except OSError as error:
        reason = f"{error.filename or 'the disk'}: {error.strerror or error}"
    except KeyboardInterrupt as error:
        print(f"{program}: {str(error) or _interruption(arguments)}", file=sys.stderr)
        return INTERRUPTED
    else:
        _print_result(result, arguments, program)
        return DONE
    print(f"{program}: {reason}", file=sys.stderr)
    # `doctor` returns 1 for what it has found.
    return int(getattr(arguments, "failure_code", MISTAKE))


def _run_with_settings(arguments: argparse.Namespace) -> object:
    file = settings_file.read(
        arguments.settings, overrides=arguments.overrides, is_check=arguments.verb == "check"
    )
    show = (lambda _text: None) if arguments.quiet else partial(print, flush=True)
    filled: Mapping[str, str] = {}
    if arguments.dry_run:
        is_clarify = arguments.verb == "explain" and arguments.clarify is not None
        verb = "explain --clarify" if is_clarify else arguments.verb
        verb = "deploy --expires" if getattr(arguments, "expires", None) else verb
        file, filled = placeholders.fill(file, verb)
    aws = Aws(region=file.settings.aws.region or None, is_dry=arguments.dry_run, show=show)
    for key, value in filled.items():
        aws.show_placeholder(key, value)
    is_local = arguments.local and not aws.is_dry
    place = on_this_machine if is_local else on_sagemaker
    # The next step depends on them.
    arguments.endpoint_kind = file.settings.endpoint.kind
    arguments.tuned = file.settings.tuning.ranges if file.settings.tuning else {}
    return place.VERBS[arguments.verb](aws, file, arguments)


def _run_without_settings(arguments: argparse.Namespace) -> object:
    # Raises KeyboardInterrupt, like SIGINT, so that partial files are removed.
    handler = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return arguments.run(arguments)
    finally:
        signal.signal(signal.SIGTERM, handler)


def _interruption(arguments: argparse.Namespace) -> str:
    if arguments.local or "run" in arguments:
        return "stopped"
    return "stopped; jobs on SageMaker continue: `status` lists them, `delete` stops them"


def _print_result(result: object, arguments: argparse.Namespace, program: str) -> None:
    """Print the result as the last line of stdout, for scripts; then the next step on stderr."""
    if result is not None and not arguments.dry_run:
        print(result, flush=True)
    if not arguments.quiet:
        step = VERBS[arguments.verb].next_step(arguments, result, program)
        print(f"next: {step}", file=sys.stderr)
