"""A killed preparation leaves nothing behind that the next one does not remove."""

import subprocess
import sys
import time
from pathlib import Path

from tests.planted import drawn, encoded

COMMAND = (sys.executable, "-m", "image_classifier.preparation", "prepare", "in")


def write_images(folder: Path, count: int) -> None:
    data = [encoded(drawn(number), "PNG") for number in range(50)]
    for number in range(count):
        path = folder / ("ant" if number % 2 else "bee") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data[number % 50])


def hidden(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.startswith(".")}


def test_next_run_removes_the_folder_of_a_killed_run_only(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 300)
    # A folder of the same form without a lock is someone else's.
    (tmp_path / ".prepare-own").mkdir()
    before = hidden(tmp_path)
    with subprocess.Popen([*COMMAND, "killed"], cwd=tmp_path) as killed:
        while not list(tmp_path.glob(".prepare-*/in-use")):
            time.sleep(0.01)
        # While it reads the images.
        time.sleep(0.2)
        killed.kill()
    (left,) = hidden(tmp_path) - before
    running = subprocess.Popen([*COMMAND, "running"], cwd=tmp_path)

    result = subprocess.run(
        [*COMMAND, "next"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert running.wait() == 0
    assert result.returncode == 0, result.stderr
    assert hidden(tmp_path) == before
    assert {"running", "next"} <= {path.name for path in tmp_path.iterdir()}
    assert not (tmp_path / "killed").exists()
    assert left not in hidden(tmp_path)
