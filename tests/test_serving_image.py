"""The serving container image, in a Docker engine: the lines of the contract that need one."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.artifacts import encode, random_pixels
from tests.containers import docker
from tests.processes import free_port
from tests.servers import Response, request

pytestmark = pytest.mark.docker

PNG = encode(random_pixels())

# A client inside of a container that no network reaches.
CLIENT = """
import http.client
connection = http.client.HTTPConnection("localhost", 8080)
image = open("/opt/ml/model/golden/0.png", "rb").read()
connection.request("POST", "/invocations", image, {"Content-Type": "image/png"})
print(connection.getresponse().status)
"""


@pytest.fixture(scope="module")
def model(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact that every user may read."""
    directory = tmp_path_factory.mktemp("ml") / "model"
    shutil.copytree(artifact, directory)
    for path in (directory, *directory.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return directory


@contextmanager
def running(image: str, model: Path, *options: str) -> Iterator[str]:
    """Start `docker run IMAGE serve` and yield the container's name."""
    name = f"serving-test-{time.monotonic_ns()}"
    volume = f"{model}:/opt/ml/model:ro"
    docker("run", "--detach", "--name", name, "--volume", volume, *options, image, "serve")
    try:
        yield name
    finally:
        docker("rm", "--force", "--volumes", name)


def wait_until_ready(name: str, port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if request(port, "GET", "/ping").status == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError(docker("logs", name).text)


def invoke(port: int, data: bytes) -> Response:
    return request(port, "POST", "/invocations", data, {"Content-Type": "application/x-image"})


def test_12_it_serves_read_only_as_another_user_in_one_gigabyte(
    serve_image: str, model: Path
) -> None:
    port = free_port()
    photograph = np.asarray(Image.fromarray(random_pixels()).resize((6000, 4000)))

    with running(
        serve_image,
        model,
        *("--read-only", "--tmpfs", "/tmp", "--user", "1001", "--shm-size", "64k"),  # noqa: S108  the container's
        *("--memory", "1g", "--memory-swap", "1g", "--publish", f"{port}:8080"),
    ) as name:
        wait_until_ready(name, port)
        assert invoke(port, PNG).status == 200
        for file_format in ("JPEG", "PNG", "WEBP"):
            assert invoke(port, encode(photograph, file_format)).status == 200
        assert docker("inspect", "--format", "{{.State.OOMKilled}}", name).text == "false\n"


def test_13_it_serves_without_a_network(serve_image: str, model: Path) -> None:
    with running(serve_image, model, "--network", "none") as name:
        deadline = time.monotonic() + 60
        while "is served" not in docker("logs", name).text and time.monotonic() < deadline:
            time.sleep(0.1)

        status = docker("exec", name, "python", "-c", CLIENT).text

    assert status == "200\n"


def test_16_its_labels_say_that_it_takes_a_port_and_many_models(serve_image: str) -> None:
    labels = json.loads(docker("inspect", "--format", "{{json .Config.Labels}}", serve_image).text)

    assert labels["com.amazonaws.sagemaker.capabilities.accept-bind-to-port"] == "true"
    assert labels["com.amazonaws.sagemaker.capabilities.multi-models"] == "true"


def test_the_containers_memory_limit_decides_how_many_models_fit(
    serve_image: str, model: Path
) -> None:
    port = free_port()

    def load(name: str) -> int:
        document = {"model_name": name, "url": "/opt/ml/models/id/model"}
        return request(port, "POST", "/models", json.dumps(document).encode()).status

    with running(
        serve_image,
        model,
        *("--memory", "1g", "--memory-swap", "1g", "--publish", f"{port}:8080"),
        *("--env", "SAGEMAKER_MULTI_MODEL=true", "--volume", f"{model}:/opt/ml/models/id/model:ro"),
    ) as name:
        wait_until_ready(name, port)
        statuses = [load(str(number)) for number in range(4)]
        unloaded = request(port, "DELETE", "/models/0").status

        assert sorted(set(statuses)) == [200, 507]
        assert statuses == sorted(statuses)
        assert unloaded == 200
        assert load("another") == 200


def test_gunicorn_is_pid_1_and_docker_stop_ends_it_with_0(serve_image: str, model: Path) -> None:
    port = free_port()

    with running(
        serve_image, model, "--env", "SAGEMAKER_BIND_TO_PORT=9999", "--publish", f"{port}:9999"
    ) as name:
        wait_until_ready(name, port)
        command = docker("exec", name, "cat", "/proc/1/cmdline").text
        docker("stop", "--time", "30", name)

        assert "gunicorn" in command
        assert docker("inspect", "--format", "{{.State.ExitCode}}", name).text == "0\n"


def test_page_and_metrics_are_served_if_enabled(serve_image: str, model: Path) -> None:
    port = free_port()
    names = ("SAGEMAKER_CLASSIFIER_PAGE", "SAGEMAKER_CLASSIFIER_METRICS")
    variables = [f"--env={name}=true" for name in names]

    with running(serve_image, model, *variables, "--publish", f"{port}:8080") as name:
        wait_until_ready(name, port)

        assert b"Drop an image here" in request(port, "GET", "/").body
        assert b"classifier_queue_length 0" in request(port, "GET", "/metrics").body


def test_a_container_without_a_model_ends_with_a_sentence(serve_image: str) -> None:
    output = docker("run", "--rm", serve_image, "serve", check=False)

    assert output.exit_code == 3
    assert "no manifest.json in /opt/ml/model" in output.text
    assert "Traceback" not in output.text


def test_it_holds_neither_torch_nor_training_and_is_below_600_mb(serve_image: str) -> None:
    ours = ["container.training", "container.debugger"]
    names = ["torch", "torchvision", "onnx", "openvino_telemetry", *ours]
    program = f"import importlib.util as u; print([n for n in {names} if u.find_spec(n)])"

    found = docker("run", "--rm", "--entrypoint", "python", serve_image, "-c", program).text

    assert found == "[]\n"
    assert int(docker("inspect", "--format", "{{.Size}}", serve_image).text) < 600e6


def test_too_low_a_limit_of_processes_ends_the_server_with_a_sentence(
    serve_image: str, model: Path
) -> None:
    with running(serve_image, model, "--pids-limit", "24") as name:
        assert docker("wait", name, timeout=60).text.strip() == "3"
        assert "allow more processes" in docker("logs", name).text
