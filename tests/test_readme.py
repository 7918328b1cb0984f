"""The documents match the code, and the quickstart works."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from container.classifier.media_types import RESPONSE_MEDIA_TYPES
from container.classifier.metric_lines import METRIC_NAMES
from tests.processes import free_port
from tests.readme import README, ROOT, TABLES, with_tables

TEXT = README.read_text(encoding="utf-8")


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


def test_files_and_folders_in_the_readme_exist() -> None:
    named = re.findall(r"`((?:container|local_test|tests|benchmarks|docs)/[\w/.]+)`", TEXT)
    made_by_a_run = "local_test/test_dir"

    missing = [n for n in named if not n.startswith(made_by_a_run) and not (ROOT / n).exists()]
    assert missing == []
    assert len(named) > 4


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
    environment = {**os.environ, "DOCKER_HOST": "unix:///nonexistent", "PORT": port}

    blocks = re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)
    quickstart = next(block for block in blocks if "curl --data-binary @local_test" in block)
    commands = [line[2:] for line in quickstart.splitlines() if line.startswith("$ ")]
    script = "set -euo pipefail\n" + "\n".join(commands).replace(":8080", f":{port}")
    result = subprocess.run(
        ["bash", "-c", script],  # noqa: S607 - bash is on the PATH
        cwd=clone,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stdout + result.stderr
    expected = re.search(r"this image is (\w+):", result.stdout)
    assert expected
    assert f'"predictions":[{{"class_name":"{expected[1]}"' in result.stdout
