"""Access to the files of an artifact, any of which can be missing, damaged or malicious."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from container.classifier.errors import ArtifactError, UserError

# Much larger than any real document; a hostile file cannot fill the memory.
MAX_JSON_BYTES = 16 * 2**20

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


def file_in(directory: Path, name: str) -> Path:
    """Return the path of a regular file within a folder.

    Raises:
        ArtifactError: the file is missing, is a device, a pipe or a folder, or is outside of
            `directory`.
    """
    path = directory / name
    with _readable(directory, name):
        is_inside = path.resolve().is_relative_to(directory.resolve())
        is_file = path.is_file()
    if not is_inside:
        raise ArtifactError(f"{name!r} is outside of the artifact's folder {directory}")
    if not is_file:
        raise ArtifactError(f"{name} is missing from {directory}")
    return path


def read_json(directory: Path, name: str) -> Json:
    """Read a JSON document of at most MAX_JSON_BYTES.

    Raises:
        ArtifactError: the file cannot be read, is too large or is not JSON.
    """
    path = file_in(directory, name)
    with _readable(directory, name), path.open("rb") as file:
        data = file.read(MAX_JSON_BYTES + 1)
    if len(data) > MAX_JSON_BYTES:
        raise ArtifactError(f"{path} has more than {MAX_JSON_BYTES} bytes")
    try:
        document: Json = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is not JSON: {error}") from error
    return document


def check_sha256(directory: Path, name: str, expected: Json) -> None:
    """Check a file's SHA-256.

    Raises:
        ArtifactError: the file cannot be read or has another SHA-256.
    """
    with _readable(directory, name):
        found = sha256_of(file_in(directory, name))
    if found != expected:
        raise ArtifactError(f"{name} in {directory} is damaged: its SHA-256 is not the manifest's")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def damage_reported(name: str) -> Iterator[None]:
    """Report errors in the use of a document that has another structure than expected.

    Raises:
        ArtifactError: instead of any such error.
    """
    try:
        yield
    except ArtifactError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError, UserError) as error:
        raise ArtifactError(f"{name} is damaged: {type(error).__name__}: {error}") from error


@contextmanager
def _readable(directory: Path, name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        # The two last: a cycle of links, and a name that no file can have.
        raise ArtifactError(f"{name!r} in {directory} cannot be read: {error}") from error
