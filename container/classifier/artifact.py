"""The artifact: the files of a trained classifier in /opt/ml/model.

| file | content |
|---|---|
| `manifest.json` | class names, preprocessing, metrics, provenance, SHA-256 of the other files |
| `weights.safetensors` | the network's parameters |
| `model.onnx` | the network, from uint8 pixels to probabilities |
| `model.int8.onnx` | the same in int8, if its accuracy suffices |
| `golden/` | a few images, with the probabilities of both networks |

Training writes them, serving reads them.
Independent of SageMaker, networks and HTTP. An artifact consists of JSON, safetensors, ONNX and
images; it has no pickles, so loading it cannot run code.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from container.classifier.checked_files import (
    MAX_JSON_BYTES,
    check_sha256,
    damage_reported,
    read_json,
    sha256_of,
)
from container.classifier.errors import ArtifactError
from container.classifier.manifest import (
    FORMAT_VERSION,
    INT8,
    MANIFEST,
    Manifest,
    read_manifest,
    typed,
)

WEIGHTS = "weights.safetensors"
ONNX_MODEL = "model.onnx"
INT8_MODEL = "model.int8.onnx"
GOLDEN = "golden"
GOLDEN_ANSWERS = "golden/answers.json"
INT8_ANSWERS = "golden/int8.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class GoldenAnswer:
    """An image and the probabilities that training computed for it."""

    data: bytes
    """The image file, as training read it."""

    probabilities: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Int8Network:
    """A smaller and faster network with slightly different predictions."""

    onnx_model: Path

    golden_answers: tuple[GoldenAnswer, ...]
    """The same images with this network's probabilities."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """An artifact on disk, with files that match the manifest's checksums."""

    manifest: Manifest
    onnx_model: Path
    weights: Path | None
    """The parameters of the same network. None if the manifest does not list them: serving with
    OpenVINO needs the ONNX file only."""

    golden_answers: tuple[GoldenAnswer, ...]
    int8: Int8Network | None
    """None if the manifest's precision is not `int8`."""

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read an artifact and check the SHA-256 of every file.

        Files that the manifest does not list are ignored, such as the `model.tar.gz` that the
        SDK's Local Mode leaves there.

        Raises:
            ArtifactError: there is no artifact, or a file is missing, damaged or outside of the
                folder.
        """
        document: Any = read_manifest(directory)
        manifest = Manifest.from_json(document)
        needed = [ONNX_MODEL, GOLDEN_ANSWERS]
        if manifest.precision == INT8:
            needed += [INT8_MODEL, INT8_ANSWERS]
        files = document.get("files")
        if not isinstance(files, dict) or any(name not in files for name in needed):
            raise ArtifactError(f"{MANIFEST} must list {' and '.join(needed)} under `files`")
        for name, sha256 in files.items():
            check_sha256(directory, name, sha256)
        answers = tuple(_read_golden_answers(directory, files))
        int8 = None
        if manifest.precision == INT8:
            int8 = Int8Network(
                onnx_model=directory / INT8_MODEL,
                golden_answers=tuple(_read_int8_answers(directory, answers)),
            )
        return cls(
            manifest=manifest,
            onnx_model=directory / ONNX_MODEL,
            weights=directory / WEIGHTS if WEIGHTS in files else None,
            golden_answers=answers,
            int8=int8,
        )


@contextmanager
def writing(directory: Path, manifest: Manifest) -> Iterator[Path]:
    """Yield an empty folder for the artifact's files; afterwards move them to `directory`.

    The manifest is moved last. If the block fails, an artifact that was there before is
    unchanged; `read` rejects the result of a kill between two moves.

    Raises:
        ArtifactError: the manifest is too large to be read.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with _scratch_folder(directory) as scratch:
        yield scratch
        files = _sha256_of_files(scratch)
        _write_manifest(scratch, manifest, files)
        # The previous artifact may have had other golden images, and an int8 network.
        shutil.rmtree(directory / GOLDEN, ignore_errors=True)
        (directory / INT8_MODEL).unlink(missing_ok=True)
        _move((*files, MANIFEST), scratch, directory)


@contextmanager
def extending(directory: Path, manifest: Manifest) -> Iterator[Path]:
    """Yield an empty folder for more files; afterwards add them to the artifact in `directory`.

    The artifact is complete at every moment, because the manifest, which lists the old and the new
    files, is moved last.

    Raises:
        ArtifactError: there is no artifact, or the manifest is too large to be read.
    """
    document: Any = read_manifest(directory)
    with _scratch_folder(directory) as scratch:
        yield scratch
        added = _sha256_of_files(scratch)
        _write_manifest(scratch, manifest, typed(document, "files", dict) | added)
        _move((*added, MANIFEST), scratch, directory)


def write_golden(directory: Path, answers: Sequence[tuple[str, GoldenAnswer]]) -> None:
    """Write golden images, each with the suffix of its file name, and their probabilities."""
    (directory / GOLDEN).mkdir()
    document = []
    for number, (suffix, answer) in enumerate(answers):
        name = f"{GOLDEN}/{number}{suffix}"
        (directory / name).write_bytes(answer.data)
        document.append({"file": name, "probabilities": answer.probabilities})
    (directory / GOLDEN_ANSWERS).write_text(json.dumps(document) + "\n", encoding="utf-8")


def write_int8_answers(directory: Path, probabilities: Sequence[Sequence[float]]) -> None:
    """Write the int8 network's probabilities of the golden images, in their order."""
    (directory / GOLDEN).mkdir()
    (directory / INT8_ANSWERS).write_text(json.dumps(probabilities) + "\n", encoding="utf-8")


@contextmanager
def _scratch_folder(directory: Path) -> Iterator[Path]:
    for abandoned in directory.glob(".partial-*"):
        # A run was killed while it wrote.
        shutil.rmtree(abandoned, ignore_errors=True)
    # Within the destination, because files cannot be renamed across file systems.
    scratch = Path(tempfile.mkdtemp(prefix=".partial-", dir=directory))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _sha256_of_files(directory: Path) -> dict[str, str]:
    paths = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): sha256_of(path) for path in sorted(paths)}


def _write_manifest(directory: Path, manifest: Manifest, files: Mapping[str, str]) -> None:
    document = {"format_version": FORMAT_VERSION, **asdict(manifest), "files": files}
    text = json.dumps(document, indent=2) + "\n"
    if len(text) > MAX_JSON_BYTES:
        raise ArtifactError(f"{MANIFEST} would have {len(text)} bytes, more than {MAX_JSON_BYTES}")
    (directory / MANIFEST).write_text(text, encoding="utf-8")


def _move(names: Sequence[str], source: Path, target: Path) -> None:
    for name in names:
        (target / name).parent.mkdir(exist_ok=True)
        # Some libraries write files that only their owner can read; a serverless endpoint runs as
        # another user.
        (source / name).chmod(0o644)
        (source / name).replace(target / name)


def _read_golden_answers(directory: Path, files: Mapping[str, str]) -> Iterator[GoldenAnswer]:
    document: Any = read_json(directory, GOLDEN_ANSWERS)
    with damage_reported(GOLDEN_ANSWERS):
        for answer in document:
            name = str(answer["file"])
            if name not in files:
                raise ArtifactError(
                    f"{GOLDEN_ANSWERS} names {name!r}, which {MANIFEST} does not list"
                )
            probabilities = tuple(map(float, answer["probabilities"]))
            yield GoldenAnswer(data=(directory / name).read_bytes(), probabilities=probabilities)


def _read_int8_answers(directory: Path, answers: Sequence[GoldenAnswer]) -> Iterator[GoldenAnswer]:
    """Yield the golden images with the int8 network's probabilities."""
    rows: Any = read_json(directory, INT8_ANSWERS)
    with damage_reported(INT8_ANSWERS):
        for answer, row in zip(answers, rows, strict=True):
            yield GoldenAnswer(data=answer.data, probabilities=tuple(map(float, row)))
