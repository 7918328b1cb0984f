"""What several test modules share."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from container.training.data.cache import VARIABLE
from tests.artifacts import write_artifact
from tests.containers import SERVE_IMAGE, TRAIN_IMAGE, build, has_engine
from tests.servers import Server, serving

LEFT_OUT = pytest.StashKey[int]()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the tests that need a Docker engine out where there is none."""
    needy = [item for item in items if item.get_closest_marker("docker")]
    if needy and not has_engine():
        items[:] = [item for item in items if item not in needy]
        config.hook.pytest_deselected(items=needy)
        config.stash[LEFT_OUT] = len(needy)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say what was left out."""
    if count := config.stash.get(LEFT_OUT, 0):
        sentence = f"{count} tests not run: they need a Docker engine, `docker info` finds none"
        terminalreporter.write_line(sentence, yellow=True)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what the tests and the programs that they start decode out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def train_image() -> str:
    """The training container image's name, built from the code as it stands."""
    build("train")
    return TRAIN_IMAGE


@pytest.fixture(scope="session")
def serve_image() -> str:
    """The serving container image's name, built from the code as it stands."""
    build("serve")
    return SERVE_IMAGE


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small real artifact; copy it before changing it."""
    directory = tmp_path_factory.mktemp("artifact")
    write_artifact(directory)
    return directory


@pytest.fixture(scope="session")
def other_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another network of the same classes and sizes."""
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
