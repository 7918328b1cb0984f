"""Seconds of `make setup` and of `make up` in fresh clones without any `.venv`.

    python -m benchmarks.first_start --before ../earlier --rounds 3

Each round clones every checkout and runs the commands in the clones, one checkout after the other,
in alternating order. Only the first round downloads packages and builds the layers of container
images; its seconds are reported separately. `make up` needs a Docker engine, which it uses; whether
it created `.venv` is reported.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.conditions import ROOT, print_results
from tests.processes import free_port


def main() -> None:
    """Measure; print a line per command and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--before", type=Path, help="another checkout to compare with")
    parser.add_argument("--rounds", type=int, default=1, help="after the first (default: 1)")
    parser.add_argument("--targets", nargs="+", default=["setup", "up"], help="default: both")
    arguments = parser.parse_args()
    checkouts = {"after": ROOT}
    if arguments.before:
        checkouts["before"] = arguments.before.resolve()
    results: list[dict[str, Any]] = []
    for number in range(arguments.rounds + 1):
        names = sorted(checkouts, reverse=number % 2 == 1)
        for name in names:
            for target in arguments.targets:
                row = {"round": number, "code": name, "target": target}
                row.update(measure(checkouts[name], target))
                results.append(row)
                print(*(f"{key}={value}" for key, value in row.items()), flush=True)
    for name in checkouts:
        for target in arguments.targets:
            seconds = [
                row["seconds"]
                for row in results
                if (row["code"], row["target"]) == (name, target) and row["round"]
            ]
            print(f"{name} make {target}: median {statistics.median(seconds):.1f} s")
    print_results(["torch"], results=results)


def measure(checkout: Path, target: str) -> dict[str, Any]:
    """Run a target of make in a new clone; return its seconds, and whether there is a `.venv`."""
    with tempfile.TemporaryDirectory() as scratch:
        clone = Path(scratch, "clone")
        subprocess.run([shutil.which("git") or "git", "clone", "-q", checkout, clone], check=True)
        make = shutil.which("make") or "make"
        environment = {
            **os.environ,
            "PORT": str(free_port()),
            "COMPOSE_PROJECT_NAME": "image-classifier-first-start",
        }
        start = time.monotonic()
        done = subprocess.run(
            [make, target],
            cwd=clone,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - start
        if done.returncode:
            sys.exit(done.stdout)
        has_environment = (clone / ".venv").exists()
        if target == "up":
            subprocess.run(
                [make, "down"], cwd=clone, env=environment, capture_output=True, check=True
            )
        # Earlier versions wrote files as root.
        shutil.rmtree(clone, ignore_errors=True)
    return {"seconds": round(seconds, 1), "venv": has_environment}


if __name__ == "__main__":
    main()
