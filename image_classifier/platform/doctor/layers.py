"""The files in all layers of a container image, also those that later layers delete."""

import json
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import RawIOBase
from typing import IO, cast

# Manifest, configuration and history have kilobytes.
_MAX_DOCUMENT_BYTES = 10_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerFile:
    """A file that is not empty."""

    path: str
    """Absolute, in the container."""

    layer: str
    """Name of the layer in the saved image."""


class SavedImage:
    """A container image as `docker save` writes it, before or since Docker 25."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        """Read it from the pieces of a tar."""
        self._stream = _Stream(pieces)
        self._documents: dict[str, object] = {}

    def files(self) -> Iterator[LayerFile]:
        """Yield the files of all layers, layer by layer in any order.

        Raises:
            tarfile.TarError: it is not a saved image.
        """
        with _open(self._stream) as archive:
            for member in archive:
                content = archive.extractfile(member)
                if content is None:
                    continue
                if member.size <= _MAX_DOCUMENT_BYTES:
                    yield from self._of_small_member(member.name, content)
                else:
                    yield from _files(member.name, content)

    def command_of(self, layer: str) -> str | None:
        """Return the line of the Dockerfile that made a layer, after all files have been read."""
        with suppress(LookupError, TypeError, ValueError, AttributeError):
            manifest = self._documents["manifest.json"][0]  # type: ignore[index]
            config = self._documents[manifest["Config"]]
            made = [each for each in config["history"] if not each.get("empty_layer")]  # type: ignore[index]
            return str(made[manifest["Layers"].index(layer)]["created_by"])
        return None

    def _of_small_member(self, name: str, content: IO[bytes]) -> Iterator[LayerFile]:
        """Yield the files of a layer, or keep a document."""
        body = content.read()
        try:
            self._documents[name] = json.loads(body)
        except ValueError:
            yield from _files(name, _Stream([body]))


class _Stream(RawIOBase):
    """A file of pieces."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        if not self._rest:
            self._rest = next(self._pieces, b"")
        found, self._rest = self._rest[:size], self._rest[size:]
        return found


def _files(layer: str, content: IO[bytes] | _Stream) -> Iterator[LayerFile]:
    with suppress(tarfile.ReadError), _open(content) as archive:
        for member in archive:
            if member.isfile() and member.size:
                yield LayerFile(path=f"/{member.name.removeprefix('./')}", layer=layer)


def _open(content: IO[bytes] | _Stream) -> tarfile.TarFile:
    # `|` reads without seeking; `*` detects compressed layers.
    return tarfile.open(fileobj=cast(IO[bytes], content), mode="r|*")
