"""The files of a trained classifier: what training writes and serving reads.

Knows nothing of SageMaker, networks or HTTP. Nothing in an artifact can execute: JSON,
safetensors, ONNX and images.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Self, TypeAlias

from container.classifier.errors import ArtifactError, UserError
from container.classifier.preprocessing import Preprocessing

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
ONNX_MODEL = "model.onnx"
INT8_MODEL = "model.int8.onnx"
GOLDEN = "golden"
GOLDEN_ANSWERS = "golden/answers.json"
INT8_ANSWERS = "golden/int8.json"

FLOAT32, INT8 = "float32", "int8"
PRECISIONS = (FLOAT32, INT8)

# Of images (N, 3, H, W): left and right, top and bottom, both.
FLIPS = ((3,), (2,), (2, 3))

# Far above any real one; keeps a hostile file from filling the memory.
MAX_JSON_BYTES = 16 * 2**20

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What a classifier is, in words and numbers."""

    class_names: tuple[str, ...]
    """In the order of the probabilities."""

    network: str
    """torchvision's name, or `small`."""

    preprocessing: Preprocessing

    metrics: Mapping[str, Json] = field(default_factory=dict)
    """Of the validation images, at the epoch whose weights these are."""

    temperature: float = 1.0
    """Calibration: the logits are divided by it, inside the ONNX graph."""

    flips: tuple[tuple[int, ...], ...] = ()
    """Of `FLIPS`, those over which the logits are averaged, with those of the image as it is,
    inside the ONNX graph. Manifests of before do not say it."""

    precision: str = FLOAT32
    """In which the network is served: `int8` where training has found that good enough."""

    provenance: Mapping[str, Json] = field(default_factory=dict)
    """Data, code, packages, random seed and hardware that made it."""

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read an artifact's, whatever its other files are.

        Raises:
            ArtifactError: there is none, or not one of ours.
        """
        return cls.from_json(_read_manifest(directory))

    @classmethod
    def from_json(cls, document: Json) -> Self:
        """Read a manifest's JSON.

        Raises:
            ArtifactError: something is missing or of another type.
        """
        try:
            if not isinstance(document, dict) or document["format_version"] != FORMAT_VERSION:
                message = f"{MANIFEST} is not of format_version {FORMAT_VERSION}"
                raise ArtifactError(message)
            return cls(
                class_names=_class_names(document["class_names"]),
                network=_typed(document, "network", str),
                preprocessing=Preprocessing(**_typed(document, "preprocessing", dict)),
                metrics=_typed(document, "metrics", dict),
                temperature=float(_typed(document, "temperature", float | int)),
                flips=_flips(document.get("flips", [])),
                precision=_precision(document["precision"]),
                provenance=_typed(document, "provenance", dict),
            )
        except ArtifactError:
            raise
        except (KeyError, TypeError, ValueError, OverflowError, UserError) as error:
            message = f"{MANIFEST} is damaged: {type(error).__name__}: {error}"
            raise ArtifactError(message) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class GoldenAnswer:
    """An image and the probabilities that training saw for it."""

    data: bytes
    """The image's file, as training read it."""

    probabilities: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Int8Network:
    """A smaller and faster network, which answers a little differently."""

    onnx_model: Path

    golden_answers: tuple[GoldenAnswer, ...]
    """Its own, for the same images."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """An artifact on disk whose every file was found to be what the manifest says."""

    manifest: Manifest
    onnx_model: Path
    weights: Path | None
    """The same network's parameters; None where the manifest does not list them, for who serves
    the ONNX file can do without."""

    golden_answers: tuple[GoldenAnswer, ...]
    int8: Int8Network | None
    """None where the manifest's precision is another one."""

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read an artifact and check every file's SHA-256.

        Files that the manifest does not name, such as the `model.tar.gz` that the SDK's Local Mode
        leaves beside them, are not touched.

        Raises:
            ArtifactError: there is none, or a file is missing, damaged or outside of the folder.
        """
        document = _read_manifest(directory)
        manifest = Manifest.from_json(document)
        files = document.get("files") if isinstance(document, dict) else None
        needed = [ONNX_MODEL, GOLDEN_ANSWERS]
        if manifest.precision == INT8:
            needed += [INT8_MODEL, INT8_ANSWERS]
        if not isinstance(files, dict) or any(name not in files for name in needed):
            message = f"{MANIFEST} must list {' and '.join(needed)} under `files`"
            raise ArtifactError(message)
        for name, sha256 in files.items():
            try:
                _check_file(directory, name, sha256)
            except OSError as error:
                message = f"{name} in {directory} cannot be read: {error}"
                raise ArtifactError(message) from error
        answers = tuple(_read_golden(directory, files))
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
    """Yield an empty folder for the artifact's files; on leaving it they become the artifact.

    The files reach `directory` by renaming, the manifest last. When writing fails, whatever
    artifact was there before is untouched; a kill between two renames leaves one that `read`
    refuses.

    Raises:
        ArtifactError: the manifest is too large to be read.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with _partial(directory) as partial:
        yield partial
        files = _sha256_of_files(partial)
        _write_manifest(partial, manifest, files)
        # An earlier artifact may have had other golden images, and an int8 network.
        shutil.rmtree(directory / GOLDEN, ignore_errors=True)
        (directory / INT8_MODEL).unlink(missing_ok=True)
        _move((*files, MANIFEST), partial, directory)


@contextmanager
def extending(directory: Path, manifest: Manifest) -> Iterator[Path]:
    """Yield an empty folder for more of an artifact's files; on leaving it they belong to it.

    The artifact is whole at every moment: the manifest, which names the files that were there and
    the new ones, comes last.

    Raises:
        ArtifactError: there is no artifact, or the manifest is too large to be read.
    """
    document = _read_manifest(directory)
    with _partial(directory) as partial:
        yield partial
        added = _sha256_of_files(partial)
        _write_manifest(partial, manifest, _typed(document, "files", dict) | added)  # type: ignore[arg-type]
        _move((*added, MANIFEST), partial, directory)


@contextmanager
def _partial(directory: Path) -> Iterator[Path]:
    """Yield a folder within `directory` that is gone afterwards."""
    for abandoned in directory.glob(".partial-*"):
        # Of a run that was killed while it wrote.
        shutil.rmtree(abandoned, ignore_errors=True)
    # Beside its destination: renaming does not cross file systems.
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=directory))
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sha256_of_files(directory: Path) -> dict[str, str]:
    names = sorted(str(path.relative_to(directory)) for path in _files(directory))
    return {name: sha256_of(directory / name) for name in names}


def _write_manifest(directory: Path, manifest: Manifest, files: Mapping[str, str]) -> None:
    document = {"format_version": FORMAT_VERSION, **asdict(manifest), "files": files}
    text = json.dumps(document, indent=2) + "\n"
    if len(text) > MAX_JSON_BYTES:
        message = f"{MANIFEST} would have {len(text)} bytes, more than {MAX_JSON_BYTES}"
        raise ArtifactError(message)
    (directory / MANIFEST).write_text(text, encoding="utf-8")


def _move(names: Sequence[str], source: Path, target: Path) -> None:
    for name in names:
        (target / name).parent.mkdir(exist_ok=True)
        # Some libraries write for the owner alone; a serverless endpoint runs as somebody else.
        (source / name).chmod(0o644)
        (source / name).replace(target / name)


def write_golden(directory: Path, answers: Sequence[tuple[str, GoldenAnswer]]) -> None:
    """Write golden images and answers; each comes with its file name's suffix."""
    (directory / GOLDEN).mkdir()
    document = []
    for number, (suffix, answer) in enumerate(answers):
        name = f"{GOLDEN}/{number}{suffix}"
        (directory / name).write_bytes(answer.data)
        document.append({"file": name, "probabilities": answer.probabilities})
    (directory / GOLDEN_ANSWERS).write_text(json.dumps(document) + "\n", encoding="utf-8")


def write_int8_answers(directory: Path, probabilities: Sequence[Sequence[float]]) -> None:
    """Write what the int8 network answers to the golden images, in their order."""
    (directory / GOLDEN).mkdir()
    (directory / INT8_ANSWERS).write_text(json.dumps(probabilities) + "\n", encoding="utf-8")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(directory: Path) -> Iterator[Path]:
    return (path for path in directory.rglob("*") if path.is_file())


def _class_names(names: Json) -> tuple[str, ...]:
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        message = f"class_names must be a list of names, got {names!r}"
        raise ArtifactError(message)
    if not len(names) == len(set(names)) > 1:
        message = f"class_names must be at least two different ones, got {names!r}"
        raise ArtifactError(message)
    return tuple(map(str, names))


def _precision(name: Json) -> str:
    if name not in PRECISIONS:
        message = f"precision must be one of {', '.join(PRECISIONS)}, got {name!r}"
        raise ArtifactError(message)
    return str(name)


def _flips(names: Json) -> tuple[tuple[int, ...], ...]:
    known = [list(axes) for axes in FLIPS]
    if not isinstance(names, list) or any(axes not in known for axes in names):
        message = f"flips must be a list of some of {known}, got {names!r}"
        raise ArtifactError(message)
    return tuple(axes for axes in FLIPS if list(axes) in names)


def _typed(document: dict[str, Json], name: str, kind: type | UnionType) -> Any:  # noqa: ANN401 - of `kind`
    value = document[name]
    if not isinstance(value, kind):
        message = f"{name} must be {kind}, got {value!r}"
        raise ArtifactError(message)
    return value


def _read_manifest(directory: Path) -> Json:
    if not (directory / MANIFEST).is_file():
        message = (
            f"no {MANIFEST} in {directory}: is this an artifact of our training container image?"
        )
        raise ArtifactError(message)
    return _read_json(directory, MANIFEST)


def _read_json(directory: Path, name: str) -> Json:
    path = _file(directory, name)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        message = f"{name} in {directory} cannot be read: {error}"
        raise ArtifactError(message) from error
    if len(data) > MAX_JSON_BYTES:
        message = f"{path} has more than {MAX_JSON_BYTES} bytes"
        raise ArtifactError(message)
    try:
        document: Json = json.loads(data)
    except (ValueError, RecursionError) as error:
        message = f"{path} is not JSON: {error}"
        raise ArtifactError(message) from error
    return document


def _file(directory: Path, name: str) -> Path:
    """Return where a file lies: nothing else is opened, such as a device or a pipe."""
    path = directory / name
    try:
        is_inside = path.resolve().is_relative_to(directory.resolve())
        is_file = path.is_file()
    except (OSError, RuntimeError, ValueError) as error:
        # No name at all, or links in a circle.
        message = f"{name!r} in {directory} cannot be read: {error}"
        raise ArtifactError(message) from error
    if not is_inside:
        message = f"{name!r} is outside of the artifact's folder {directory}"
        raise ArtifactError(message)
    if not is_file:
        message = f"{name} is missing from {directory}"
        raise ArtifactError(message)
    return path


def _check_file(directory: Path, name: str, sha256: Json) -> None:
    if sha256_of(_file(directory, name)) != sha256:
        message = f"{name} in {directory} is damaged: its SHA-256 is not the manifest's"
        raise ArtifactError(message)


def _read_golden(directory: Path, files: Mapping[str, Json]) -> Iterator[GoldenAnswer]:
    answers = _read_json(directory, GOLDEN_ANSWERS)
    try:
        for answer in answers:  # type: ignore[union-attr]
            name = str(answer["file"])  # type: ignore[call-overload, index]
            if name not in files:
                message = f"{GOLDEN_ANSWERS} names {name!r}, which {MANIFEST} does not list"
                raise ArtifactError(message)
            yield GoldenAnswer(
                data=(directory / name).read_bytes(),
                probabilities=tuple(map(float, answer["probabilities"])),  # type: ignore[call-overload, index, arg-type]
            )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        message = f"{GOLDEN_ANSWERS} is damaged: {type(error).__name__}: {error}"
        raise ArtifactError(message) from error


def _read_int8_answers(directory: Path, answers: Sequence[GoldenAnswer]) -> Iterator[GoldenAnswer]:
    """Yield the golden images with the probabilities of the int8 network."""
    rows = _read_json(directory, INT8_ANSWERS)
    try:
        for answer, row in zip(answers, rows, strict=True):  # type: ignore[arg-type]
            yield GoldenAnswer(data=answer.data, probabilities=tuple(map(float, row)))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        message = f"{INT8_ANSWERS} is damaged: {type(error).__name__}: {error}"
        raise ArtifactError(message) from error
