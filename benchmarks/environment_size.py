"""What packages take on disk, with all that they need, in megabytes.

    PYTHON -m benchmarks.environment_size flask gunicorn numpy openvino pillow

PYTHON is the interpreter in whose environment they are installed. Python's own compiled files do
not count. What is for NVIDIA's GPUs counts apart: PyTorch has wheels without that, which no package
index of Python's holds.
"""

import argparse
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.conditions import conditions

CUDA_PACKAGES = re.compile(r"nvidia|cuda|triton")
CUDA_FILES = re.compile(r"cuda|nvshmem|nvrtc")


def with_needs(names: Iterable[str]) -> Sequence[str]:
    """Return the packages and, of what they need here, all that is installed."""
    found: dict[str, None] = {}
    waiting = list(names)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name not in found:
            found[name] = None
            waiting += _needs(name)
    return sorted(found)


def sizes(name: str) -> tuple[int, int]:
    """Return the bytes of a package's files: in all, and those for NVIDIA's GPUs."""
    total = cuda = 0
    for path in metadata.files(name) or ():
        file = Path(path.locate())
        if path.suffix != ".pyc" and file.is_file():
            size = file.stat().st_size
            total += size
            if CUDA_PACKAGES.search(name) or CUDA_FILES.search(path.name):
                cuda += size
    return total, cuda


def main() -> None:
    """Print each package's megabytes, in all and for GPUs, and one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("packages", nargs="+")
    arguments = parser.parse_args()
    found = {name: sizes(name) for name in with_needs(arguments.packages)}
    for name, (total, cuda) in sorted(found.items(), key=lambda item: -item[1][0]):
        print(f"{total / 1e6:8.1f} {cuda / 1e6:8.1f}  {name}")
    total, cuda = map(sum, zip(*found.values(), strict=True))
    print(f"{total / 1e6:8.1f} {cuda / 1e6:8.1f}  all")
    document = {"megabytes": total / 1e6, "for GPUs": cuda / 1e6}
    print(json.dumps({**document, "conditions": conditions(arguments.packages)}))


def _needs(name: str) -> Iterator[str]:
    for line in metadata.requires(name) or ():
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            metadata.distribution(requirement.name)
        except metadata.PackageNotFoundError:
            # An environment may do without.
            continue
        yield requirement.name


if __name__ == "__main__":
    main()
