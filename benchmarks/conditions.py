"""The conditions of a measurement: commit, processor, package versions."""

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent


def conditions(packages: Sequence[str]) -> dict[str, str]:
    """Return the commit, the processor and the versions of `packages`."""
    return {
        "commit": _commit(),
        "processor": _processor(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }


def print_results(packages: Sequence[str], **results: object) -> None:
    """Print one JSON document, with the conditions of the measurement."""
    print(json.dumps({**results, "conditions": conditions(packages)}))


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _processor() -> str:
    model = platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return f"{model}, {os.cpu_count()} cores"
