"""The artifact on disk: a damaged one is rejected with a message."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from container.classifier.artifact import (
    GOLDEN_ANSWERS,
    INT8_ANSWERS,
    INT8_MODEL,
    ONNX_MODEL,
    WEIGHTS,
    Artifact,
    extending,
    write_int8_answers,
    writing,
)
from container.classifier.checked_files import Json, sha256_of
from container.classifier.errors import ArtifactError
from container.classifier.manifest import INT8, MANIFEST, Manifest
from container.classifier.preprocessing import Preprocessing
from tests.artifacts import CLASS_NAMES


@pytest.fixture
def model(artifact: Path, tmp_path: Path) -> Path:
    """Return a copy that a test may damage."""
    return Path(shutil.copytree(artifact, tmp_path / "model"))


def change_manifest(model: Path, **changes: Json) -> None:
    document = json.loads((model / MANIFEST).read_text())
    (model / MANIFEST).write_text(json.dumps({**document, **changes}))


def update_checksum(model: Path, name: str) -> None:
    """Write the SHA-256 of a changed file into the manifest."""
    files = json.loads((model / MANIFEST).read_text())["files"]
    change_manifest(model, files={**files, name: sha256_of(model / name)})


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_artifact_is_read_as_it_was_written(model: Path) -> None:
    artifact = Artifact.read(model)

    assert artifact.manifest.class_names == CLASS_NAMES
    assert artifact.manifest.preprocessing == Preprocessing(image_size=32, crop_fraction=0.875)
    assert artifact.onnx_model == model / ONNX_MODEL
    assert artifact.weights == model / WEIGHTS
    assert len(artifact.golden_answers) == 3
    assert sum(artifact.golden_answers[0].probabilities) == pytest.approx(1)


def test_flips_are_read_and_older_manifests_have_none(model: Path) -> None:
    change_manifest(model, flips=[[3], [2, 3]])
    assert Artifact.read(model).manifest.flips == ((3,), (2, 3))

    document = json.loads((model / MANIFEST).read_text())
    del document["flips"]
    (model / MANIFEST).write_text(json.dumps(document))
    assert Artifact.read(model).manifest.flips == ()


def test_files_that_the_manifest_does_not_list_are_ignored(model: Path) -> None:
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
def test_damaged_manifest_is_rejected(model: Path, content: bytes, message: str) -> None:
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
        {"flips": None},
        {"flips": [3]},
        {"flips": [[1]]},
        {"precision": 32},
        {"precision": "float8"},
        {"precision": ["int8"]},
        # The int8 network is missing.
        {"precision": INT8},
        {"files": None},
        {"files": []},
        {"files": {}},
        {"files": {ONNX_MODEL: 1, GOLDEN_ANSWERS: 1}},
    ],
)
def test_manifest_with_a_wrong_value_is_rejected(model: Path, changes: dict[str, Json]) -> None:
    change_manifest(model, **changes)

    with pytest.raises(ArtifactError):
        Artifact.read(model)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../outside", "golden/../../outside", "golden", ""]
)
def test_listed_file_outside_of_the_folder_is_rejected(model: Path, name: str) -> None:
    (model.parent / "outside").write_bytes(b"")
    files = json.loads((model / MANIFEST).read_text())["files"]
    change_manifest(model, files={**files, name: sha256_of(model / ONNX_MODEL)})

    with pytest.raises(ArtifactError, match=r"outside|missing"):
        Artifact.read(model)


def test_link_to_a_file_outside_is_rejected(model: Path) -> None:
    elsewhere = model.parent / "elsewhere"
    shutil.move(model / ONNX_MODEL, elsewhere)
    (model / ONNX_MODEL).symlink_to(elsewhere)

    with pytest.raises(ArtifactError, match="outside"):
        Artifact.read(model)


@pytest.mark.parametrize("target", ["/dev/zero", "../elsewhere", MANIFEST])
def test_manifest_that_links_outside_is_rejected(model: Path, target: str) -> None:
    shutil.copy(model / MANIFEST, model.parent / "elsewhere")
    (model / MANIFEST).unlink()
    (model / MANIFEST).symlink_to(target)

    with pytest.raises(ArtifactError, match=r"outside|no manifest\.json"):
        Manifest.read(model)


def test_cycle_of_links_is_rejected(model: Path) -> None:
    (model / ONNX_MODEL).unlink()
    (model / ONNX_MODEL).symlink_to(ONNX_MODEL)

    with pytest.raises(ArtifactError, match="cannot be read"):
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
def test_error_names_the_damaged_or_missing_file(
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
def test_golden_answers_of_another_structure_are_rejected(model: Path, content: str) -> None:
    (model / GOLDEN_ANSWERS).write_text(content)
    update_checksum(model, GOLDEN_ANSWERS)

    with pytest.raises(ArtifactError):
        Artifact.read(model)


@pytest.mark.parametrize("exists", [False, True])
def test_folder_without_an_artifact_is_rejected(tmp_path: Path, *, exists: bool) -> None:
    directory = tmp_path / "model"
    if exists:
        directory.mkdir()

    with pytest.raises(ArtifactError, match=r"no manifest\.json in .* training container image\?"):
        Artifact.read(directory)


@pytest.mark.parametrize(("change", "name"), [(writing, ONNX_MODEL), (extending, INT8_MODEL)])
def test_failed_change_leaves_the_previous_artifact(
    change: Callable[[Path, Manifest], AbstractContextManager[Path]], name: str, model: Path
) -> None:
    before = contents(model)

    def write_half() -> None:
        with change(model, Artifact.read(model).manifest) as partial:
            (partial / name).write_bytes(b"half")
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
    assert artifact.weights is None
    assert artifact.golden_answers == ()


def add_int8(model: Path) -> Manifest:
    """Add an int8 network to an artifact with three golden images."""
    manifest = dataclasses.replace(Artifact.read(model).manifest, precision=INT8)
    with extending(model, manifest) as partial:
        (partial / INT8_MODEL).write_bytes(b"int8")
        write_int8_answers(partial, [[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    return manifest


def test_int8_network_is_read_with_its_own_golden_answers(model: Path) -> None:
    before = Artifact.read(model)

    manifest = add_int8(model)

    after = Artifact.read(model)
    assert after == dataclasses.replace(before, manifest=manifest, int8=after.int8)
    assert after.int8 is not None
    assert after.int8.onnx_model.read_bytes() == b"int8"
    assert [answer.data for answer in after.int8.golden_answers] == [
        answer.data for answer in before.golden_answers
    ]
    assert [answer.probabilities for answer in after.int8.golden_answers] == [
        (1, 0, 0),
        (0, 1, 0),
        (0, 0, 1),
    ]


def test_artifact_is_complete_at_every_moment_while_extended(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, seen = Path.replace, []

    def watched(self: Path, target: Path) -> Path:
        seen.append(Artifact.read(model).manifest.precision)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    add_int8(model)

    assert seen == ["float32"] * 3
    assert Artifact.read(model).manifest.precision == INT8


def test_writing_again_removes_the_int8_network(model: Path) -> None:
    add_int8(model)

    with writing(model, dataclasses.replace(Artifact.read(model).manifest, precision="float32")):
        pass

    assert sorted(path.name for path in model.iterdir() if "int8" in path.name) == []
    assert not (model / INT8_ANSWERS).exists()


@pytest.mark.parametrize("name", [INT8_MODEL, INT8_ANSWERS])
def test_error_names_the_damaged_file_of_the_int8_network(model: Path, name: str) -> None:
    add_int8(model)
    flip_a_bit(model / name)

    with pytest.raises(ArtifactError, match=f"{name}.* is damaged"):
        Artifact.read(model)


@pytest.mark.parametrize(
    "content",
    ["null", "3", "[]", "[[1, 0, 0]]", "[1, 2, 3]", '[["a"], [], []]', "[[], [], [null]]"],
)
def test_int8_answers_of_another_structure_are_rejected(model: Path, content: str) -> None:
    add_int8(model)
    (model / INT8_ANSWERS).write_text(content)
    update_checksum(model, INT8_ANSWERS)

    with pytest.raises(ArtifactError, match=r"int8\.json is damaged"):
        Artifact.read(model)
