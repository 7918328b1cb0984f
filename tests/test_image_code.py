"""Container images whose code is not that of the checkout."""

import io
import tarfile
from pathlib import Path, PurePosixPath

import pytest

from image_classifier.platform import containers, image_code
from tests.containers import build, docker, has_engine

SERVED = ("container/__init__.py", "container/classifier/errors.py", "container/serving/page.html")


def checkout(folder: Path) -> Path:
    """Write a checkout with code of both container images."""
    names = (*SERVED, "container/training/job.py", "container/serving/__pycache__/old.pyc")
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (folder / "Dockerfile.train").touch()
    return folder


def packed(folder: Path) -> tarfile.TarFile:
    """Return the code of the serving container image, as Docker packs it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("__init__.py", "classifier", "serving"):
            archive.add(folder / "container" / name, f"container/{name}")
    buffer.seek(0)
    return tarfile.open(fileobj=buffer)


def test_code_of_the_checkout_is_the_same(tmp_path: Path) -> None:
    folder = checkout(tmp_path)
    with packed(folder) as archive:
        # Not in the serving container image.
        (folder / "container" / "training" / "job.py").write_text("changed")
        (folder / "container" / "serving" / "notes.txt").touch()

        assert image_code.differing_file(archive, folder) is None


@pytest.mark.parametrize("name", SERVED)
@pytest.mark.parametrize("is_removed", [False, True])
def test_changed_and_removed_files_are_found(
    tmp_path: Path, name: str, *, is_removed: bool
) -> None:
    folder = checkout(tmp_path)
    with packed(folder) as archive:
        if is_removed:
            (folder / name).unlink()
        else:
            (folder / name).write_text("changed")

        assert image_code.differing_file(archive, folder) == PurePosixPath(name)


def test_new_file_is_found(tmp_path: Path) -> None:
    folder = checkout(tmp_path)
    with packed(folder) as archive:
        (folder / "container" / "serving" / "http").mkdir()
        (folder / "container" / "serving" / "http" / "new.py").touch()

        found = image_code.differing_file(archive, folder)

    assert found == PurePosixPath("container/serving/http/new.py")


def test_without_a_checkout_nothing_is_warned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_code, "checkout", lambda: None)
    assert image_code.warning("image-classifier-train") == ""
    # No engine responds at this address, or no Docker client exists.
    monkeypatch.setattr(image_code, "checkout", lambda: checkout(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    assert image_code.warning("image-classifier-train") == ""


@pytest.mark.docker
def test_image_of_other_code_is_named_with_the_command_that_updates_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert has_engine()
    build("serve")
    assert image_code.warning(containers.SERVE_IMAGE) == ""
    monkeypatch.setattr(image_code, "checkout", lambda: checkout(tmp_path))

    text = image_code.warning(containers.SERVE_IMAGE)

    assert f"has other code than {tmp_path}, for example in container/" in text
    assert text.endswith("`docker compose build serve` there updates it")
    # No container is left.
    image = f"ancestor={containers.SERVE_IMAGE}"
    left = docker("ps", "--all", "--quiet", "--filter", image, "--filter", "status=created")
    assert left.text == ""
