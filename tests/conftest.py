"""Fixtures that several test modules share."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

import pytest

from container.classifier.environment import CACHE_DIR_VARIABLE
from image_classifier.platform.containers import CHOICE_VARIABLE, SERVE_IMAGE, TRAIN_IMAGE
from tests.artifacts import write_artifact
from tests.containers import build, has_engine
from tests.servers import Server, serving

if TYPE_CHECKING:
    from tests.accounts import StandIn

DESELECTED = pytest.StashKey[int]()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests that need a Docker engine if none is running."""
    docker_tests = [item for item in items if item.get_closest_marker("docker")]
    if docker_tests and not has_engine():
        items[:] = [item for item in items if item not in docker_tests]
        config.hook.pytest_deselected(items=docker_tests)
        config.stash[DESELECTED] = len(docker_tests)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Report the deselected tests."""
    if count := config.stash.get(DESELECTED, 0):
        sentence = f"{count} tests not run: they need a Docker engine, and `docker info` finds none"
        terminalreporter.write_line(sentence, yellow=True)


@pytest.fixture(scope="session", autouse=True)
def _own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Set an own image cache, and no containers, for tests and the programs that they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_DIR_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        # Container images may be of other code; tests of containers choose them.
        patch.setenv(CHOICE_VARIABLE, "processes")
        yield


@pytest.fixture(scope="session")
def train_image() -> str:
    """Return the training container image's name, built from the current code."""
    build("train")
    return TRAIN_IMAGE


@pytest.fixture(scope="session")
def serve_image() -> str:
    """Return the serving container image's name, built from the current code."""
    build("serve")
    return SERVE_IMAGE


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small real artifact; copy it before changing it."""
    directory = tmp_path_factory.mktemp("artifact")
    write_artifact(directory)
    return directory


@pytest.fixture(scope="session")
def other_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return another artifact with the same classes and image size."""
    directory = tmp_path_factory.mktemp("other_artifact")
    write_artifact(directory, seed=1)
    return directory


@pytest.fixture(scope="module")
def base_dir(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("ml")
    shutil.copytree(artifact, directory / "model")
    return directory


@pytest.fixture(scope="module")
def server(base_dir: Path) -> Iterator[Server]:
    with serving(base_dir) as running:
        yield running


@pytest.fixture(scope="session")
def moto_server() -> Iterator[str]:
    """The address of moto's server."""
    from moto.server import ThreadedMotoServer  # noqa: PLC0415 - takes seconds

    from tests import inference_components  # noqa: PLC0415

    inference_components.install()
    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


@pytest.fixture
def account(moto_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """An empty account with one bucket, and an empty working folder."""
    import boto3  # noqa: PLC0415 - takes seconds

    urlopen(Request(f"{moto_server}/moto-api/reset", method="POST")).close()
    for name, value in {
        "AWS_ENDPOINT_URL": moto_server,
        # moto has no prices.
        "AWS_ENDPOINT_URL_PRICING": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    boto3.client("s3", region_name="eu-west-1").create_bucket(
        Bucket="my-bucket", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    return moto_server


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> "StandIn":
    """Scripted responses for boto3, which are polled without pauses."""
    from image_classifier.sagemaker import aws  # noqa: PLC0415 - takes seconds
    from tests.accounts import StandIn  # noqa: PLC0415

    monkeypatch.setattr(aws, "POLL_SECONDS", 0)
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    return StandIn(monkeypatch)
