"""`completion`: a script for a shell, generated from the parsers of all verbs."""

import argparse
from collections.abc import Iterator

import shtab

from image_classifier.cli.verbs import PROGRAM

SHELLS = ("bash", "zsh", "fish")


def add_options(parser: argparse.ArgumentParser, of_all_verbs: argparse.ArgumentParser) -> None:
    """Add the options of `completion`, which describes the parser `of_all_verbs`."""
    parser.add_argument("shell", choices=SHELLS, help="shell that loads the script")
    parser.add_argument("--quiet", action="store_true", help="print only the script")

    def run(arguments: argparse.Namespace) -> str:
        # Also if Python was started with the package.
        of_all_verbs.prog = PROGRAM
        for action in _actions(of_all_verbs):
            # Positional arguments are paths, except the shell.
            if not action.option_strings and action.choices is None:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
        return str(shtab.complete(of_all_verbs, arguments.shell))

    parser.set_defaults(run=run)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:  # noqa: SLF001 - argparse has no public list
        yield action
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - as above
            for below in action.choices.values():
                yield from _actions(below)
