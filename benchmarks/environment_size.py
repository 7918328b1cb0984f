"""Prints the disk size of packages with their dependencies, in megabytes.

    PYTHON -m benchmarks.environment_size flask gunicorn numpy openvino pillow

PYTHON is the interpreter of the environment in which they are installed. Compiled Python files
are not counted. Files for NVIDIA GPUs are counted separately.
"""

import argparse
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.conditions import print_results

CUDA_PACKAGES = re.compile(r"nvidia|cuda|triton")
CUDA_FILES = re.compile(r"cuda|nvshmem|nvrtc")


def with_dependencies(names: Iterable[str]) -> Sequence[str]:
    """Return the packages and their installed dependencies."""
    found: dict[str, None] = {}
    waiting = list(names)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name not in found:
            found[name] = None
            waiting += _dependencies(name)
    return sorted(found)


def sizes(name: str) -> tuple[int, int]:
    """Return the bytes of a package's files: all of them, and those for NVIDIA GPUs."""
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
    """Print the megabytes of each package, total and for GPUs, and one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("packages", nargs="+")
    arguments = parser.parse_args()
    found = {name: sizes(name) for name in with_dependencies(arguments.packages)}
    for name, (total, cuda) in sorted(found.items(), key=lambda item: -item[1][0]):
        print(f"{total / 1e6:8.1f} {cuda / 1e6:8.1f}  {name}")
    total, cuda = map(sum, zip(*found.values(), strict=True))
    print(f"{total / 1e6:8.1f} {cuda / 1e6:8.1f}  all")
    document = {"megabytes": total / 1e6, "for GPUs": cuda / 1e6}
    print_results(arguments.packages, **document)


def _dependencies(name: str) -> Iterator[str]:
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
