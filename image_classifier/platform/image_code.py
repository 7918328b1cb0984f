"""Whether the code in a container image is that of the checkout."""

import io
import json
import tarfile
from contextlib import closing, suppress
from importlib import metadata
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from image_classifier.platform.program import ROOT
from image_classifier.platform.sandbox import labels
from image_classifier.platform.sandbox.container_target import connect
from image_classifier.platform.sandbox.launch import SandboxError

# Folder of the code in a container image.
CODE = "/opt/program/container"

# Files with these suffixes are compared.
SUFFIXES = {".py", ".jinja", ".css", ".html"}

# The copy of 130 files takes a second.
COPY_SECONDS = 20


def warning(image: str) -> str:
    """Return a sentence if a container image has other code than the checkout.

    Empty also if the package is not installed from a checkout, or the files cannot be copied.
    """
    folder = checkout()
    if folder is None:
        return ""
    different = None
    with (
        suppress(OSError, SandboxError, tarfile.TarError),
        tarfile.open(fileobj=io.BytesIO(_packed_code(image))) as archive,
    ):
        different = differing_file(archive, folder)
    if different is None:
        return ""
    return (
        f"WARNING: the container image {image} has other code than {folder}, for example in "
        f"{different}: `docker compose build {image.rpartition('-')[2]}` there updates it"
    )


def checkout(root: Path = ROOT) -> Path | None:
    """Return the checkout that this package is installed from, if it still exists."""
    origins = [root]
    with suppress(metadata.PackageNotFoundError, ValueError):
        # pip writes it when it installs a folder.
        text = metadata.distribution("image-classifier").read_text("direct_url.json")
        origins.append(Path(unquote(urlsplit(json.loads(text or "{}").get("url", "")).path)))
    return next((folder for folder in origins if (folder / "Dockerfile.train").is_file()), None)


def differing_file(archive: tarfile.TarFile, folder: Path) -> PurePosixPath | None:
    """Return the first file that is not the same in a container image and in a checkout.

    Args:
        archive: `container/` of the container image, with some of the checkout's packages in it.
        folder: the checkout.
    """
    contents = {}
    for member in archive:
        file = archive.extractfile(member)
        if file and (path := PurePosixPath(member.name)).suffix in SUFFIXES:
            contents[path] = file.read()
    packages = {path.parents[-3] for path in contents if len(path.parts) > 2}  # noqa: PLR2004
    here = {
        PurePosixPath(path.relative_to(folder))
        for package in packages
        for path in (folder / package).rglob("*")
        if path.suffix in SUFFIXES
    }
    for path in sorted(here | contents.keys()):
        file_here = folder / path
        if not file_here.is_file() or contents.get(path) != file_here.read_bytes():
            return path
    return None


def _packed_code(image: str) -> bytes:
    """Return the code in a container image, as the engine packs it.

    Raises:
        SandboxError: the engine cannot pack it.
    """
    with closing(connect(COPY_SECONDS)) as client:
        import docker  # noqa: PLC0415 - takes a moment

        try:
            container = client.containers.create(image, labels=labels.of_command())
            try:
                pieces, _ = container.get_archive(CODE)
                return b"".join(pieces)
            finally:
                container.remove()
        except docker.errors.DockerException as error:
            raise SandboxError(f"{image} cannot be read: {error}") from error
