"""The generated tables match the code, and the quickstart works."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from container.classifier.media_types import RESPONSE_MEDIA_TYPES
from container.classifier.metric_lines import METRIC_NAMES
from tests.documents import PAGES, README, ROOT, blocks, run
from tests.processes import free_port
from tests.readme import TABLES, with_tables

TEXT = "".join(page.read_text(encoding="utf-8") for page in PAGES)


@pytest.mark.parametrize("document", TABLES, ids=lambda path: path.name)
def test_generated_tables_are_up_to_date(document: Path) -> None:
    expected = with_tables(document)

    assert document.read_text(encoding="utf-8") == expected, (
        "update it with: python -m tests.readme"
    )


def test_metrics_and_media_types_are_documented() -> None:
    assert [
        name for name in (*METRIC_NAMES, *RESPONSE_MEDIA_TYPES) if f"`{name}`" not in TEXT
    ] == []


def test_environment_variables_of_the_server_are_documented() -> None:
    settings = (ROOT / "container/serving/settings.py").read_text(encoding="utf-8")
    read = set(re.findall(r"\"(SAGEMAKER_\w+)\"", settings))

    assert [name for name in sorted(read) if name not in TEXT] == []


@pytest.mark.slow
def test_quickstart_works_without_a_docker_engine(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    clone.mkdir()
    listed = subprocess.run(
        ["git", "ls-files"],  # noqa: S607 - git is on the PATH
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, clone / name)
    (clone / ".venv").symlink_to(ROOT / ".venv")
    # Newer than the copied lock, or make would install into the real one.
    (ROOT / ".venv" / "ready").touch()
    port = str(free_port())
    environment = {"DOCKER_HOST": "unix:///nonexistent", "PORT": port}

    (quickstart,) = blocks([README], mark="quickstart")
    output = run(quickstart, clone, environment, port=port)

    expected = re.search(r"this image is (\w+):", output)
    assert expected
    assert f": {expected[1]} (" in output
