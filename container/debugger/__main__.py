"""Evaluate rules on a recorded training, or write a report on it."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from container.classifier.errors import UserError
from container.debugger import report, sources
from container.debugger.reading.records import DamagedTensorError, Records
from container.debugger.rules import selection
from container.debugger.rules.rule import ERROR, INSUFFICIENT, ISSUES, Verdict

# Exit codes: no issues, issues, no data.
OK, ISSUES_FOUND, FAILED = 0, 1, 2

# Violations that are printed of one rule: those of other layers are mostly the same.
MAX_VIOLATIONS = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code."""
    parser = argparse.ArgumentParser(prog="debugger", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    rules = commands.add_parser("rules", help="evaluate AWS's rules on tensor files or a log")
    rules.add_argument("path", type=Path, help="folder of tensors, job's folder, or log")
    rules.add_argument("--rules", help="names by commas, or SageMaker's JSON; default: all")
    rules.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="RULE.NAME=VALUE",
        help="parameters that differ from the defaults",
    )
    rules.add_argument("--json", action="store_true", help="print one JSON document instead")
    page = commands.add_parser("report", help="write a page on a job: rules, times, tensors")
    page.add_argument("path", type=Path, help="job's folder, or folder of tensors or a profile")
    page.add_argument(
        "--output", type=Path, default=Path("debug-report.html"), help="default: %(default)s"
    )
    options = parser.parse_args(arguments)
    try:
        if "output" in options:
            _write_report(options.path, options.output)
            return OK
        selected = selection.with_parameters(selection.select(options.rules), options.set)
        verdicts = selection.evaluate_all(selected, sources.read(options.path))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    if options.json:
        print(json.dumps([verdict.to_json() for verdict in verdicts], indent=2))
    else:
        _print(verdicts)
    return ISSUES_FOUND if any(verdict.status == ISSUES for verdict in verdicts) else OK


def _write_report(path: Path, output: Path) -> None:
    profile = sources.read_profile(path)
    try:
        records = sources.read(path)
    except UserError:
        if profile is None:
            raise
        records = Records({}, [])
    verdicts = selection.evaluate_all(selection.select(None), records)
    try:
        page = report.render(records, profile, verdicts, str(path))
        output.write_text(page, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}") from None
    except DamagedTensorError as error:
        raise UserError(f"{path} is damaged: {error}; `rules` evaluates what can be read") from None
    print(output)


def _print(verdicts: Sequence[Verdict]) -> None:
    order = {ISSUES: 0, ERROR: 1}
    for verdict in sorted(verdicts, key=lambda verdict: order.get(verdict.status, 2)):
        print(f"{verdict.status:<17} {verdict.rule:<25} {verdict.finding.datapoints} data points")
        if verdict.status == INSUFFICIENT:
            print(f"    required: {verdict.finding.lacks}")
        if verdict.error:
            print(f"    {verdict.error}")
        for violation in verdict.finding.violations[:MAX_VIOLATIONS]:
            print(
                f"    {violation.unit} {violation.step}, {violation.tensor}: {violation.sentence}"
            )
        if (more := len(verdict.finding.violations) - MAX_VIOLATIONS) > 0:
            print(f"    and {more} more")
        if worst := verdict.worst:
            print(f"    probable cause: {worst.cause}")
            print(f"    remedy: {worst.remedy}")


if __name__ == "__main__":
    sys.exit(main())
