"""`debug`: the debugger's rules on a recorded job, run as a separate program."""

import argparse
import subprocess
import sys
from pathlib import Path

from container.classifier.errors import UserError
from image_classifier.platform import processes
from image_classifier.platform.program import ROOT

# Exit codes of `python -m container.debugger rules`.
_NO_ISSUES, _ISSUES = 0, 1


def evaluate(job: Path, arguments: argparse.Namespace) -> None:
    """Print the verdicts of the rules on the records in a job's folder.

    Raises:
        UserError: the debugger is not installed, the folder has no records, or a rule found an
            issue.
    """
    processes.require("matplotlib")
    options = ["--json"] if arguments.json else []
    options += ["--rules", arguments.rules] if arguments.rules else []
    finished = subprocess.run(
        [sys.executable, "-m", "container.debugger", "rules", str(job.resolve()), *options],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if finished.returncode == _ISSUES:
        raise UserError("the rules found issues: they are listed above with their remedies")
    if finished.returncode != _NO_ISSUES:
        lines = finished.stderr.strip().splitlines() or [f"code {finished.returncode}"]
        raise UserError(f"the rules cannot be evaluated: {lines[-1].removeprefix('error: ')}")
