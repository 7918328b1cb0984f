"""Fixtures that several test modules share."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from container.classifier.environment import CACHE_DIR_VARIABLE
from image_classifier.platform.containers import CHOICE_VARIABLE, SERVE_IMAGE, TRAIN_IMAGE
from tests.artifacts import write_artifact
from tests.containers import build, has_engine
from tests.servers import Server, serving

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
