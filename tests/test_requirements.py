"""The locks agree with pyproject.toml and with each other: what is tested is what is shipped."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parent.parent

LOCKS = ("dev", "train", "serve", "serve-gpu")

# A package's first line is the only one that is not indented; its hashes follow.
PACKAGE = re.compile(
    r"^(?P<name>[^ =]+)==(?P<version>[^ ]+) .*\n(?: {4}--hash=sha256:.*\n)+", re.MULTILINE
)


def text_of(lock: str) -> str:
    return (REPOSITORY / "requirements" / f"{lock}.txt").read_text("utf-8")


def packages(lock: str) -> dict[str, re.Match[str]]:
    return {match["name"]: match for match in PACKAGE.finditer(text_of(lock))}


def wanted(group: str) -> list[Requirement]:
    """List what a group of pyproject.toml asks for, with the groups that it includes."""
    groups = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
    found: list[Requirement] = []
    for entry in groups[group]:
        if isinstance(entry, str):
            found.append(Requirement(entry))
        else:
            found += wanted(entry["include-group"])
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_packages_with_hashes_and_nothing_else(lock: str) -> None:
    """No place to take them from, that is: whoever installs them decides."""
    assert PACKAGE.sub("", text_of(lock)) == ""


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_what_its_group_asks_for(lock: str) -> None:
    locked = packages(lock)

    for requirement in wanted(lock):
        version = locked[canonicalize_name(requirement.name)]["version"]
        assert requirement.specifier.contains(version), requirement


@pytest.mark.parametrize("lock", ["train", "serve", "serve-gpu"])
def test_an_image_holds_what_the_tests_ran_with(lock: str) -> None:
    dev = packages("dev")

    for name, package in packages(lock).items():
        assert package[0] == dev[name][0]


def test_the_serving_image_for_gpus_has_what_the_other_has_and_torch() -> None:
    names = packages("serve-gpu").keys()

    assert packages("serve").keys() < names
    assert {"torch", "torchvision", "safetensors"} < names
    assert not names & {"onnx", "matplotlib", "nncf"}


def test_the_serving_image_has_no_package_of_training_alone() -> None:
    assert not packages("serve").keys() & {"torch", "torchvision", "onnx", "matplotlib"}
