"""`prepare`, `audit` and `upload`: the commands of `image_classifier.preparation`."""

import argparse
from collections.abc import Callable, Sequence
from typing import NoReturn

from container.classifier.errors import UserError
from image_classifier.preparation import __main__ as preparation


def parser(verb: str) -> argparse.ArgumentParser:
    """Return the options of a verb, for a parser that has them as its parent."""
    parent = preparation.parents()[verb]
    run: Callable[[argparse.Namespace], int] = parent.get_default("run")

    def checked(arguments: argparse.Namespace) -> None:
        if run(arguments) != preparation.DONE:
            raise UserError(
                f"the audit of {arguments.source} found faults: remove these files, or "
                f"move them with --fix DIR"
            )

    parent.set_defaults(run=checked)
    return parent


class _Options(argparse.ArgumentParser):
    """Raises its errors, instead of exiting."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError."""
        raise UserError(f"pipeline.prepare_options: {message}")


def check_options(options: Sequence[str]) -> None:
    """Check options of `prepare`.

    Raises:
        UserError: `prepare` would reject them.
    """
    checked = _Options(add_help=False, parents=[preparation.parents()["prepare"]])
    checked.parse_args(["SOURCE", "OUT", *options])
