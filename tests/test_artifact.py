"""The artifact on disk: what is damaged is refused with a sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from classifier.artifact import (
    GOLDEN_ANSWERS,
    MANIFEST,
    ONNX_MODEL,
    Artifact,
    Json,
    Manifest,
    sha256_of,
    writing,
)
from classifier.errors import ArtifactError
from classifier.preprocessing import Preprocessing
from tests.artifacts import CLASS_NAMES


@pytest.fixture
def model(artifact: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(artifact, tmp_path / "model"))


def change_manifest(model: Path, **changes: Json) -> None:
    document = json.loads((model / MANIFEST).read_text())
    (model / MANIFEST).write_text(json.dumps({**document, **changes}))


def list_again(model: Path, name: str) -> None:
    """Have the manifest agree with a changed file."""
    files = json.loads((model / MANIFEST).read_text())["files"]
    change_manifest(model, files={**files, name: sha256_of(model / name)})


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_an_artifact_is_read_as_it_was_written(model: Path) -> None:
    artifact = Artifact.read(model)

    assert artifact.manifest.class_names == CLASS_NAMES
    assert artifact.manifest.preprocessing == Preprocessing(image_size=32, crop_fraction=0.875)
    assert artifact.onnx_model == model / ONNX_MODEL
    assert len(artifact.golden_answers) == 3
    assert sum(artifact.golden_answers[0].probabilities) == pytest.approx(1)


def test_files_that_the_manifest_does_not_name_are_left_alone(model: Path) -> None:
    (model / "model.tar.gz").write_bytes(b"?")

    assert Artifact.read(model).manifest.class_names == CLASS_NAMES


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "format_version"),
        (b"null", "format_version"),
        (b"{}", "format_version"),
        (b'{"format_version": 2}', "format_version"),
        (b'{"format_version": 1}', "class_names|damaged"),
        (b" " * (2**24 + 1), "more than 16777216 bytes"),
    ],
)
def test_a_manifest_that_is_none_is_refused(model: Path, content: bytes, message: str) -> None:
    (model / MANIFEST).write_bytes(content)

    with pytest.raises(ArtifactError, match=message):
        Artifact.read(model)


@pytest.mark.parametrize(
    "changes",
    [
        {"class_names": []},
        {"class_names": ["one"]},
        {"class_names": "ab"},
        {"class_names": ["a", ["b"]]},
        {"class_names": ["a", "a"]},
        {"preprocessing": None},
        {"preprocessing": {}},
        {"preprocessing": {"image_size": "224"}},
        {"preprocessing": {"image_size": 10**6}},
        {"preprocessing": {"image_size": 224.5}},
        {"preprocessing": {"image_size": 224.0}},
        {"temperature": 10**400},
        {"files": {"a\0b": "", ONNX_MODEL: "", GOLDEN_ANSWERS: ""}},
        {"files": {5000 * "a": "", ONNX_MODEL: "", GOLDEN_ANSWERS: ""}},
        {"preprocessing": {"image_size": 224, "blur": 1}},
        {"precision": 32},
        {"files": None},
        {"files": []},
        {"files": {}},
        {"files": {ONNX_MODEL: 1, GOLDEN_ANSWERS: 1}},
    ],
)
def test_a_manifest_with_a_wrong_value_is_refused(model: Path, changes: dict[str, Json]) -> None:
    change_manifest(model, **changes)

    with pytest.raises(ArtifactError):
        Artifact.read(model)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../outside", "golden/../../outside", "golden", ""]
)
def test_a_file_outside_of_the_folder_or_none_is_refused(model: Path, name: str) -> None:
    (model.parent / "outside").write_bytes(b"")
    files = json.loads((model / MANIFEST).read_text())["files"]
    change_manifest(model, files={**files, name: sha256_of(model / ONNX_MODEL)})

    with pytest.raises(ArtifactError, match=r"outside|missing"):
        Artifact.read(model)


def test_a_link_that_leads_outside_is_refused(model: Path) -> None:
    elsewhere = model.parent / "elsewhere"
    shutil.move(model / ONNX_MODEL, elsewhere)
    (model / ONNX_MODEL).symlink_to(elsewhere)

    with pytest.raises(ArtifactError, match="outside"):
        Artifact.read(model)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def replace_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [flip_a_bit, cut, Path.unlink, replace_by_a_folder])
@pytest.mark.parametrize(
    "name", [ONNX_MODEL, "weights.safetensors", GOLDEN_ANSWERS, "golden/0.png"]
)
def test_a_damaged_or_missing_file_is_refused_by_name(
    model: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage(model / name)

    with pytest.raises(ArtifactError, match=f"{name}.* is (damaged|missing)"):
        Artifact.read(model)


@pytest.mark.parametrize(
    "content",
    [
        "null",
        "3",
        '["x"]',
        "[{}]",
        '[{"file": "golden/0.png"}]',
        '[{"file": "golden/0.png", "probabilities": ["much"]}]',
        '[{"file": "golden/0.png", "probabilities": null}]',
        '[{"file": "/etc/passwd", "probabilities": [1]}]',
        '[{"file": null, "probabilities": [1]}]',
    ],
)
def test_golden_answers_of_another_form_are_refused(model: Path, content: str) -> None:
    (model / GOLDEN_ANSWERS).write_text(content)
    list_again(model, GOLDEN_ANSWERS)

    with pytest.raises(ArtifactError):
        Artifact.read(model)


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_without_an_artifact_is_refused_with_a_question(
    tmp_path: Path, *, exists: bool
) -> None:
    directory = tmp_path / "model"
    if exists:
        directory.mkdir()

    with pytest.raises(ArtifactError, match=r"no manifest\.json in .* training image\?"):
        Artifact.read(directory)


def test_writing_that_fails_leaves_the_old_artifact(model: Path) -> None:
    before = contents(model)
    manifest = Artifact.read(model).manifest

    def write_half() -> None:
        with writing(model, manifest) as partial:
            (partial / ONNX_MODEL).write_bytes(b"half")
            message = "the disk is full"
            raise OSError(message)

    with pytest.raises(OSError, match="the disk is full"):
        write_half()

    assert contents(model) == before
    assert sorted(path.name for path in model.iterdir()) == sorted(
        {Path(name).relative_to(model).parts[0] for name in before}
    )


def test_writing_again_replaces_the_artifact(model: Path) -> None:
    manifest = Manifest(
        class_names=("x", "y"), network="small", preprocessing=Preprocessing(image_size=64)
    )

    with writing(model, manifest) as partial:
        (partial / ONNX_MODEL).write_bytes(b"another")
        (partial / "golden").mkdir()
        (partial / GOLDEN_ANSWERS).write_text("[]")

    artifact = Artifact.read(model)
    assert artifact.manifest == manifest
    assert artifact.onnx_model.read_bytes() == b"another"
    assert artifact.golden_answers == ()
