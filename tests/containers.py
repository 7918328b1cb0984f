"""Builds both container images and runs containers, for tests."""

import os
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Output:
    exit_code: int
    text: str
    """Standard output and standard error, interleaved as written."""


def docker(*arguments: str | Path, check: bool = True, timeout: float = 120) -> Output:
    """Run `docker` with these arguments; with `check`, an exit code other than 0 is a failure."""
    result = subprocess.run(
        ["docker", *arguments],  # noqa: S607 - the Docker client is on the PATH
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=REPOSITORY,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert not (check and result.returncode), result.stdout
    return Output(result.returncode, result.stdout)


@cache
def has_engine() -> bool:
    try:
        return docker("info", check=False, timeout=20).exit_code == 0
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False


def commit() -> str:
    head = ["git", "rev-parse", "HEAD"]
    result = subprocess.run(head, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown"


def build(service: str) -> None:
    """Build the container image of a Compose service from the current code."""
    argument = f"CODE_VERSION={commit()}"
    docker("compose", "build", "--quiet", "--build-arg", argument, service, timeout=1200)


def take_ownership(directory: Path, image: str) -> None:
    """Change the owner of files that containers wrote as root to the current user."""
    owner = f"{os.getuid()}:{os.getgid()}"
    mount = f"{directory}:/directory"
    command = ("--entrypoint", "chown", image, "-R", owner, "/directory")
    docker("run", "--rm", "--network", "none", "-v", mount, *command)


def compose_containers(directory: Path) -> list[str]:
    """Return the containers of the Compose files in a folder."""
    row = '{{.ID}} {{.Label "com.docker.compose.project.config_files"}}'
    rows = docker("ps", "--all", "--format", row).text.splitlines()
    return [row.split()[0] for row in rows if row.partition(" ")[2].startswith(f"{directory}/")]


def remove_compose_containers(directory: Path) -> None:
    """Remove the containers of the Compose files in a folder."""
    if containers := compose_containers(directory):
        docker("rm", "--force", *containers)
