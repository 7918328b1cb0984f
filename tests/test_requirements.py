"""The lock files agree with pyproject.toml and with each other."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parent.parent

LOCKS = ("dev", "setup", "train", "mlflow", "serve", "serve-gpu", "docs", "sdk3")

# Installed into environments without development's packages.
SEPARATE = {"docs", "sdk3"}

# Only the first line of a package is not indented; its hashes follow.
PACKAGE = re.compile(
    r"^(?P<name>[^ =]+)==(?P<version>[^ ]+) .*\n(?: {4}--hash=sha256:.*\n)+", re.MULTILINE
)


def text_of(lock: str) -> str:
    return (REPOSITORY / "requirements" / f"{lock}.txt").read_text("utf-8")


def packages(lock: str) -> dict[str, re.Match[str]]:
    return {match["name"]: match for match in PACKAGE.finditer(text_of(lock))}


def wanted(group: str) -> list[Requirement]:
    """Return the requirements of a dependency group, included groups too."""
    groups = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
    found: list[Requirement] = []
    for entry in groups[group]:
        if isinstance(entry, str):
            found.append(Requirement(entry))
        else:
            found += wanted(entry["include-group"])
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_contains_only_packages_with_hashes(lock: str) -> None:
    """No index URL: the person who installs them chooses it."""
    assert PACKAGE.sub("", text_of(lock)) == ""


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_satisfies_its_dependency_group(lock: str) -> None:
    locked = packages(lock)

    for requirement in wanted(lock):
        version = locked[canonicalize_name(requirement.name)]["version"]
        assert requirement.specifier.contains(version), requirement


@pytest.mark.parametrize("lock", LOCKS[1:])
def test_each_lock_has_the_versions_of_the_development_lock(lock: str) -> None:
    dev = packages("dev")

    for name, package in packages(lock).items():
        if lock not in SEPARATE:
            assert name in dev
        if name in dev and lock != "sdk3":
            # Markers differ: other packages need it on PyPy.
            assert package["version"] == dev[name]["version"]
            assert package[0].splitlines()[1:] == dev[name][0].splitlines()[1:]


def test_gpu_serving_lock_adds_torch() -> None:
    names = packages("serve-gpu").keys()

    assert packages("serve").keys() < names
    assert {"torch", "torchvision", "safetensors"} < names
    assert not names & {"onnx", "matplotlib", "nncf"}


def test_serving_lock_has_no_training_packages() -> None:
    assert not packages("serve").keys() & {"torch", "torchvision", "onnx", "matplotlib"}
