"""The parsers of all programs, and their reference page."""

import argparse
import contextlib
import html
import runpy
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).parent.parent

# With the module that `python -m` runs.
PROGRAMS = (
    "image_classifier",
    "image_classifier.preparation",
    "image_classifier.explainer",
    "image_classifier.platform",
    "container.debugger",
)


class _ParserFound(Exception):  # noqa: N818 - no error
    pass


def parser_of(module: str, verb: str = "") -> argparse.ArgumentParser:
    """Return the parser of a program, which is not executed further.

    A program may define the options of a verb only if its command line has it.
    """
    # runpy warns if it is imported already.
    imported = sys.modules.pop(f"{module}.__main__", None)
    try:
        return captured(
            partial(runpy.run_module, module, run_name="__main__", alter_sys=True),
            [module, *([verb] if verb else [])],
        )
    finally:
        if imported is not None:
            sys.modules[f"{module}.__main__"] = imported


def captured(main: Callable[[], object], command: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser that `main` calls, which is not executed further."""
    found = []

    def capture(parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        found.append(parser)
        raise _ParserFound

    with (
        patch.object(argparse.ArgumentParser, "parse_args", capture),
        patch.object(sys, "argv", command),
        contextlib.suppress(_ParserFound),
    ):
        main()
    return found[0]


def subparsers_of(
    parser: argparse.ArgumentParser,
) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Yield the name, the summary and the parser of every verb."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            summaries = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, below in action.choices.items():
                yield name, summaries.get(name, ""), below


def parser_of_verb(module: str, verb: str) -> argparse.ArgumentParser:
    """Return the parser of a verb's options."""
    return next(p for name, _, p in subparsers_of(parser_of(module, verb)) if name == verb)


def _row(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    shown = action.metavar or action.dest.upper()
    value = " ".join(shown) if isinstance(shown, tuple) else str(shown)
    if not action.option_strings:
        name = str(action.metavar or action.dest)
    else:
        name = ", ".join(action.option_strings)
        if action.nargs != 0:
            name += f" {value}" + (" ..." if action.nargs in {"+", "*"} else "")
    text = (action.help or "") % {**vars(action), "prog": parser.prog}
    text = " ".join(text.replace(f"{ROOT}/", "").split())
    return f"| `{name}` | {html.escape(text, quote=False).replace('|', '&#124;')} |"


def _table(parser: argparse.ArgumentParser) -> Iterator[str]:
    actions = [action for action in parser._actions if action.dest != "help"]
    if actions:
        yield from ("| argument | meaning |", "|---|---|")
        for action in actions:
            yield _row(action, parser)
        yield ""


def sections(modules: Sequence[str] = PROGRAMS) -> str:
    """Return the reference of all programs: verbs with their arguments."""
    lines = []
    for module in modules:
        parser = parser_of(module)
        title = "image-classifier" if module == "image_classifier" else f"python -m {module}"
        lines += [f"## {title}", "", parser.description or "", ""]
        for name, summary, _ in subparsers_of(parser):
            below = parser_of_verb(module, name)
            lines += [f"### {title.rpartition('.')[2]} {name}", ""]
            sentence = summary[:1].upper() + summary[1:]
            lines += [f"{sentence}.".replace("..", "."), "", *_table(below)]
    return "\n".join(lines).rstrip()
