"""The files in all layers of a saved container image, in the formats of old and new engines."""

import io
import json
import tarfile
from collections.abc import Iterator, Mapping

import pytest

from image_classifier.platform.doctor.layers import SavedImage

COMMANDS = ("COPY . /app", "WORKDIR /app", "RUN rm /app/.env")
DELETED = "/app/.env"


def tar(files: Mapping[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def saved(names: tuple[str, str], config: str, mode: str) -> bytes:
    """Return an image whose second layer deletes a file of the first."""
    layers = [
        tar({"app/.env": b"TOKEN=1", "app/empty": b"", "./app/main.py": bytes(11_000_000)}, mode),
        tar({"app/.wh..env": b""}, mode),
    ]
    history = [{"created_by": line, "empty_layer": "WORKDIR" in line} for line in COMMANDS]
    manifest = [{"Config": config, "Layers": names}]
    # Older engines write the manifest last.
    return tar(
        {
            **dict(zip(names, layers, strict=True)),
            config: json.dumps({"history": history}).encode(),
            "manifest.json": json.dumps(manifest).encode(),
        }
    )


FORMATS = {
    "before Docker 25": (("5e/layer.tar", "6f/layer.tar"), "7a.json", "w"),
    "since Docker 25": (("blobs/sha256/5e", "blobs/sha256/6f"), "blobs/sha256/7a", "w"),
    "compressed": (("blobs/sha256/5e", "blobs/sha256/6f"), "blobs/sha256/7a", "w:gz"),
}


def pieces(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), 30_000):
        yield content[start : start + 30_000]


@pytest.mark.parametrize("name", FORMATS)
def test_deleted_file_is_found_with_its_line_of_the_dockerfile(name: str) -> None:
    image = SavedImage(pieces(saved(*FORMATS[name])))

    files = {file.path: file.layer for file in image.files()}

    assert [*files] == [DELETED, "/app/main.py"]
    assert image.command_of(files[DELETED]) == COMMANDS[0]
    assert image.command_of(FORMATS[name][0][1]) == COMMANDS[2]
    assert image.command_of("other") is None


def test_image_without_a_manifest_has_no_commands() -> None:
    image = SavedImage([tar({"5e/layer.tar": tar({"app/.env": b"TOKEN=1"})})])

    (file,) = image.files()

    assert image.command_of(file.layer) is None


def test_what_is_no_saved_image_is_an_error() -> None:
    with pytest.raises(tarfile.TarError):
        list(SavedImage([b"no such image"]).files())
