"""What is in the training container image."""

import functools
import http.server
import json
import re
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.containers import REPOSITORY, commit, docker

pytestmark = pytest.mark.docker


def locked(group: str) -> dict[str, str]:
    lock = (REPOSITORY / f"requirements/{group}.txt").read_text()
    return dict(re.findall(r"^([^ =]+)==(\S+)", lock, re.MULTILINE))


def installed(image: str) -> dict[str, str]:
    output = docker(
        "run", "--rm", "--entrypoint", "python", image, "-m", "pip", "list", "--format=json"
    )
    return {row["name"].lower(): row["version"] for row in json.loads(output.text)}


def test_container_image_has_the_expected_configuration(train_image: str) -> None:
    config = json.loads(docker("inspect", train_image).text)[0]["Config"]

    assert config["Entrypoint"] == ["python", "-m", "container.training"]
    assert config["Cmd"] == ["train"]
    assert not config["User"], "SageMaker runs training containers as root"
    assert config["Labels"]["org.opencontainers.image.revision"] == commit()
    assert {
        "NVIDIA_VISIBLE_DEVICES=all",
        "NVIDIA_DRIVER_CAPABILITIES=compute,utility",
        "PYTHONUNBUFFERED=1",
    } <= set(config["Env"])


def test_container_image_has_the_locked_packages_and_no_serving(train_image: str) -> None:
    packages = installed(train_image)

    here = {name: version for name, version in locked("train").items() if name in packages}
    assert {name: packages[name] for name in here} == here
    assert {"torch", "torchvision", "triton", "onnx"} <= set(here)
    assert not packages.keys() & (locked("serve").keys() - locked("train").keys())
    output = docker(
        "run",
        "--rm",
        "--entrypoint",
        "python",
        train_image,
        "-c",
        "import container.serving",
        check=False,
    )
    assert "ModuleNotFoundError" in output.text


@pytest.mark.slow
def test_torch_is_installed_from_another_index(tmp_path: Path) -> None:
    """An index of empty packages replaces PyTorch's index, which may be out of reach."""
    for name in ("torch", "torchvision"):
        _write_package(tmp_path / name, name, f"{locked('train')[name]}+cpu")

    with _index(tmp_path) as url:
        arguments = ("--build-arg", f"TORCH_INDEX_URL={url}", "--file", "Dockerfile.train")
        iid = tmp_path / "image-id"
        docker(
            "buildx",
            "build",
            "--load",
            "--network",
            "host",
            "--iidfile",
            iid,
            *arguments,
            ".",
            timeout=600,
        )
    packages = installed(iid.read_text())
    docker("rmi", iid.read_text())

    assert packages["torch"] == f"{locked('train')['torch']}+cpu"
    assert packages["onnx"] == locked("train")["onnx"]
    assert not [name for name in packages if name.startswith(("nvidia", "cuda", "triton"))]


def _write_package(directory: Path, name: str, version: str) -> None:
    directory.mkdir()
    described = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(directory / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", "")
        wheel.writestr(
            f"{described}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        wheel.writestr(
            f"{described}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{described}/RECORD", "")


@contextmanager
def _index(directory: Path) -> Iterator[str]:
    """Serve folders of packages, whose listings pip accepts as an index."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
