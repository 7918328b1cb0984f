"""The training container image in Docker, run as SageMaker runs it."""

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from image_classifier.platform import opt_ml
from tests.containers import Output, commit, docker, take_ownership

pytestmark = pytest.mark.docker

HYPERPARAMETERS = {"network": "small", "image_size": "16", "epochs": "1", "batch_size": "8"}
# `docker compose up` and the tests of the journey quantize in containers.
HYPERPARAMETERS |= {"quantize": "none"}

# SageMaker sends SIGKILL 120 s after SIGTERM.
STOP_SECONDS = 120


@pytest.fixture
def job(tmp_path: Path, train_image: str) -> Iterator[Path]:
    yield (base_dir := _prepare(tmp_path))
    take_ownership(base_dir, train_image)


@pytest.fixture(scope="module")
def finished_job(tmp_path_factory: pytest.TempPathFactory, train_image: str) -> Path:
    """Return a finished job, which tests must not change."""
    base_dir = _prepare(tmp_path_factory.mktemp("finished"))
    output = train(train_image, base_dir, "train")
    take_ownership(base_dir, train_image)
    assert output.exit_code == 0, output.text
    return base_dir


def _prepare(directory: Path) -> Path:
    """Create a job's folders with two classes of images."""
    base_dir = directory / "opt_ml"
    opt_ml.create(base_dir)
    for brightness, class_name in ((50, "dark"), (200, "light")):
        folder = base_dir / opt_ml.DATA / "training" / class_name
        folder.mkdir(parents=True)
        for number in range(12):
            Image.new("RGB", (20, 20), (brightness + number,) * 3).save(folder / f"{number}.png")
    opt_ml.write_config(base_dir, HYPERPARAMETERS)
    return base_dir


@contextmanager
def as_the_service_mounts(base_dir: Path) -> Iterator[tuple[str, ...]]:
    """Yield options of `docker run`: no network, read-only input, config for root only."""
    config = base_dir / "input/config"
    config.chmod(0o644)
    mounts = [f"{base_dir / 'input'}:/opt/ml/input:ro"]
    mounts += [f"{base_dir / name}:/opt/ml/{name}" for name in ("model", "output", "checkpoints")]
    try:
        # One thread: threads that share a core with other tests wait for each other.
        options = ("--network", "none", "--env=OMP_NUM_THREADS=1")
        yield (*options, *(part for mount in mounts for part in ("-v", mount)))
    finally:
        config.chmod(0o755)


def train(image: str, base_dir: Path, *arguments: str, options: tuple[str, ...] = ()) -> Output:
    with as_the_service_mounts(base_dir) as mounts:
        return docker("run", "--rm", *mounts, *options, image, *arguments, check=False, timeout=600)


def manifest(base_dir: Path) -> dict[str, object]:
    document: dict[str, object] = json.loads((base_dir / "model/manifest.json").read_text())
    return document


def failure(base_dir: Path) -> str:
    return (base_dir / opt_ml.FAILURE).read_text()


def test_container_trains_with_the_services_arguments(finished_job: Path) -> None:
    assert manifest(finished_job)["class_names"] == ["dark", "light"]
    assert (finished_job / "output/data/report.html").is_file()
    assert not (finished_job / opt_ml.FAILURE).exists()


@pytest.mark.parametrize("arguments", [(), ("--other", "arguments")], ids=["none", "others"])
def test_other_arguments_are_ignored(
    train_image: str, job: Path, finished_job: Path, arguments: tuple[str, ...]
) -> None:
    output = train(train_image, job, *arguments)

    assert output.exit_code == 0, output.text
    assert manifest(job)["metrics"] == manifest(finished_job)["metrics"]


def test_manifest_has_the_commit_of_the_code(finished_job: Path) -> None:
    provenance = manifest(finished_job)["provenance"]

    assert isinstance(provenance, dict)
    assert provenance["code_version"] == commit()


def test_stop_signal_saves_the_model_and_exits_with_0(train_image: str, job: Path) -> None:
    opt_ml.write_config(job, HYPERPARAMETERS | {"epochs": "10000"})
    with as_the_service_mounts(job) as mounts:
        container = docker("run", "--detach", *mounts, train_image, "train").text.strip()
        try:
            _wait_for(container, "epoch=2 ")
            docker("stop", "--time", str(STOP_SECONDS), container, timeout=STOP_SECONDS + 20)
            exit_code = docker("wait", container).text.strip()
            log = docker("logs", container).text
        finally:
            docker("rm", "--force", container)

    assert exit_code == "0", log
    assert manifest(job)["class_names"] == ["dark", "light"]


def _wait_for(container: str, text: str) -> None:
    deadline = time.monotonic() + 300
    while text not in (log := docker("logs", container).text):
        assert time.monotonic() < deadline, log
        time.sleep(0.2)


def test_failure_reason_names_the_lost_container(train_image: str, tmp_path: Path) -> None:
    names = ("algo-1", "algo-2")
    network = f"network-of-{uuid.uuid4().hex}"
    docker("network", "create", "--internal", network)
    containers = {}
    try:
        for name in names:
            base_dir = _prepare(tmp_path / name)
            opt_ml.write_config(base_dir, HYPERPARAMETERS | {"epochs": "10000"})
            resources = {
                "current_host": name,
                "hosts": names,
                "network_interface_name": "eth0",
            }
            (base_dir / "input/config/resourceconfig.json").write_text(json.dumps(resources))
            options = ("--network", network, "--network-alias", name)
            mount = ("-v", f"{base_dir}:/opt/ml")
            arguments = ("--detach", *options, *mount, train_image, "train")
            containers[name] = docker("run", *arguments).text.strip()
        _wait_for(containers["algo-1"], "epoch=2 ")
        docker("kill", containers["algo-2"])
        exit_code = docker("wait", containers["algo-1"]).text.strip()
        log = docker("logs", containers["algo-1"]).text
    finally:
        docker("rm", "--force", *containers.values())
        docker("network", "rm", network)
        take_ownership(tmp_path, train_image)

    assert exit_code == "1"
    assert "the connection to host algo-2 was lost (" in log
    assert "Traceback" not in log
    assert "the connection to host algo-2 was lost (" in failure(tmp_path / "algo-1" / "opt_ml")


def test_network_is_compiled_with_compile_true(train_image: str, job: Path) -> None:
    # Each shape of a batch is compiled separately, for minutes: 20 and 4 images are batches of 4.
    opt_ml.write_config(job, HYPERPARAMETERS | {"compile": "true", "batch_size": "4"})

    output = train(train_image, job)

    assert output.exit_code == 0, output.text
    assert "best_epoch=1 " in output.text


def test_user_error_is_in_the_failure_file(train_image: str, job: Path) -> None:
    opt_ml.write_config(job, HYPERPARAMETERS | {"epochs": "three"})

    output = train(train_image, job, "train")

    assert output.exit_code == 1
    assert failure(job) == "epochs must be a whole number, got 'three'"


def test_full_disk_is_in_the_failure_file(train_image: str, job: Path) -> None:
    (job / "model").rmdir()
    with_full_disk = ("--tmpfs", "/opt/ml/model:size=16k")
    mounts = [f"{job / name}:/opt/ml/{name}" for name in ("input", "output")]
    options = (*with_full_disk, *(part for mount in mounts for part in ("-v", mount)))

    output = docker("run", "--rm", *options, train_image, "train", check=False)

    assert output.exit_code == 1
    assert "no space left for the model artifact in /opt/ml/model" in failure(job)
