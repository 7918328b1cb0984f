"""The journey of a new user: an archive of images becomes explained predictions."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from image_classifier.platform.containers import CHOICE_VARIABLE, SERVE_IMAGE
from tests.containers import docker
from tests.opt_ml import COLORS, square, write_images
from tests.processes import free_port

REPOSITORY = Path(__file__).resolve().parent.parent

PROGRAM = "python -m image_classifier"


def kaggle_zip(path: Path) -> Path:
    """Write an archive with a wrapper folder, splits in it, and what macOS leaves behind."""
    with zipfile.ZipFile(path, "w") as archive:
        for split, first, count in (("train", 0, 30), ("valid", 100, 8), ("test", 200, 8)):
            for class_name in COLORS:
                for number in range(first, first + count):
                    name = f"squares/{split}/{class_name}/{number}.png"
                    archive.writestr(name, square(class_name, number))
                    archive.writestr(f"__MACOSX/{name.replace('/', '/._')}", b"resource fork")
        archive.writestr("squares/.DS_Store", b"x")
        archive.writestr("squares/readme.txt", b"x")
    return path


class User:
    """Someone who runs one command after the other in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.next_step = ""

    def run(self, *arguments: str) -> list[str]:
        """Run a command that must succeed; return the lines of its output."""
        finished = subprocess.run(
            [sys.executable, "-m", "image_classifier", *arguments],
            cwd=self.folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr + finished.stdout
        assert "Traceback" not in finished.stderr
        last = finished.stderr.splitlines()[-1]
        assert last.startswith("next: "), finished.stderr
        self.next_step = last.removeprefix("next: ").split(" (")[0]
        return finished.stdout.splitlines()

    def follow(self, *more: str) -> list[str]:
        """Run the command that the last one named as the next step."""
        assert self.next_step.startswith(f"{PROGRAM} ")
        return self.run(*self.next_step.removeprefix(f"{PROGRAM} ").split(), *more)


WAYS = ["processes", pytest.param("containers", marks=pytest.mark.docker)]


@pytest.fixture
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Choose processes, or the container images of the current code; return the choice."""
    chosen = str(request.param)
    if chosen == "containers":
        request.getfixturevalue("train_image")
        request.getfixturevalue("serve_image")
    monkeypatch.setenv(CHOICE_VARIABLE, chosen)
    return chosen


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS, indirect=True)
def test_archive_becomes_explained_predictions(tmp_path: Path, way: str) -> None:
    user, port, settings = User(tmp_path), free_port(), "settings.toml"
    kaggle_zip(tmp_path / "squares.zip")

    user.run("prepare", "squares.zip", "squares")
    assert {path.name for path in (tmp_path / "squares").iterdir() if path.is_dir()} == {
        "train",
        "validation",
        "test",
    }
    assert user.follow()[-1] == "settings.toml"
    assert user.follow()[0] == "settings.toml: no mistakes"
    assert user.next_step == f"{PROGRAM} train settings.toml --local"

    if way == "containers":
        # The tutorial's test searches with processes.
        short = ("--set", "tuning.jobs=2", "--set", "hyperparameters.epochs=2")
        best = user.run("tune", settings, *short, "--local")
        assert best[-1] == ".launcher/squares/tuning/model.tar.gz"
        assert user.next_step == f"{PROGRAM} train {settings} --local --from-tuning best"

    # Fewer epochs than `init` chooses suffice.
    log = user.follow("--set", "hyperparameters.epochs=10")
    assert log[-1] == ".launcher/squares/model.tar.gz"
    assert log[-2] == "report: .launcher/squares/ml/output/data/report.html"
    found = re.fullmatch(r"accuracy ([\d.]+)% \(95 % confidence: .*\) on 24 test images", log[-3])
    assert found
    assert float(found[1]) > 90
    assert user.next_step == (
        f"{PROGRAM} report {settings} --set hyperparameters.epochs=10 --local"
    )

    assert {"metrics.json", "report.html"} <= names_in(tmp_path / ".launcher/squares/output.tar.gz")
    pages = user.follow("--no-open")
    assert all((tmp_path / page).is_file() for page in pages)
    assert any(page.endswith("report.html") for page in pages)
    assert user.run("logs", "settings.toml", "--local")[-1] == log[-3]
    assert user.next_step == f"{PROGRAM} report settings.toml --local"
    verdicts = user.run("debug", "settings.toml", "--local", "--rules", "all_zero", "--json")
    assert [verdict["RuleName"] for verdict in json.loads("\n".join(verdicts))] == ["AllZero"]
    user.run("report", "settings.toml", "--local", "--no-open")

    assert user.follow("--port", str(port))[-1] == f"http://127.0.0.1:{port}"
    try:
        image = "squares/test/red/200.png"
        (line,) = user.run("predict", "settings.toml", image, "--local")
        assert line.startswith(f"{image}: red (")
        (document,) = user.run("predict", "settings.toml", image, "--local", "--json")
        assert json.loads(document)["class_names"] == sorted(COLORS)
        assert user.next_step == f"{PROGRAM} explain settings.toml {image} --local"
        assert user.follow()[-1].endswith(".html")
        images = [image, "squares/test/blue/201.png"]
        page = Path(user.run("explain", "settings.toml", *images, "--local")[-1])
        assert (tmp_path / page).is_file()
        analysis = json.loads((tmp_path / page.parent / "analysis.json").read_text())
        assert analysis
    finally:
        left = create_left_container() if way == "containers" else ""
        stopped = user.run("delete", "settings.toml", "--local", "--yes")
    assert stopped == ["the server is stopped"]
    if way == "containers":
        assert left not in docker("ps", "--all", "--no-trunc", "--quiet").text
        assert containers_of(tmp_path) == []


def names_in(archive: Path) -> set[str]:
    with tarfile.open(archive) as opened:
        return set(opened.getnames())


def create_left_container() -> str:
    """Create a container like that of a process that was killed; return its ID."""
    starter = f"image-classifier.starter={socket.gethostname()} 999999999 1"
    return docker("create", f"--label={starter}", SERVE_IMAGE, "serve").text.strip()


def containers_of(folder: Path) -> list[str]:
    """Return the containers that have mounted a folder or what is in it."""
    rows = docker("ps", "--all", "--no-trunc", "--format", "{{.ID}} {{.Mounts}}").text.splitlines()
    return [row for row in rows if str(folder) in row]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS, indirect=True)
def test_interrupted_training_leaves_nothing_running(tmp_path: Path, way: str) -> None:
    write_images(tmp_path / "data/train")
    (tmp_path / "settings.toml").write_text(
        """name = "stopped"
data = { local = "data", channels = ["train"] }
hyperparameters = { network = "small", image_size = 16, epochs = 10_000, debug = "off" }
"""
    )
    with subprocess.Popen(
        [sys.executable, "-m", "image_classifier", "train", "settings.toml", "--local"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as training:
        assert training.stdout
        assert training.stderr
        for line in training.stdout:
            if line.startswith("epoch="):
                break
        if way == "containers":
            assert len(containers_of(tmp_path)) == 1
        training.send_signal(signal.SIGINT)
        # The logs end when no process can write to them.
        training.stdout.read()
        errors = training.stderr.read()
    assert training.returncode == 130, errors
    assert "the training is stopped" in errors
    assert "`train --local` continues it" in errors
    assert any((tmp_path / ".launcher/stopped/ml/checkpoints").iterdir())
    if way == "containers":
        assert containers_of(tmp_path) == []


@pytest.mark.slow
def test_failed_training_leaves_no_older_result(tmp_path: Path) -> None:
    user = User(tmp_path)
    kaggle_zip(tmp_path / "squares.zip")
    user.run("prepare", "squares.zip", "squares")
    user.run("init", "--data", "squares", "--output", "settings.toml")
    settings = tmp_path / "settings.toml"
    text = settings.read_text().replace("epochs = 40", 'epochs = 1\nquantize = "none"')
    settings.write_text(text)
    user.run("train", "settings.toml", "--local")
    model = tmp_path / ".launcher/squares/model.tar.gz"
    assert model.is_file()
    port = str(free_port())
    user.run("deploy", "settings.toml", "--local", "--port", port)
    settings.write_text(text.replace("epochs = 1\n", "epochs = 1\nmin_accuracy = 1.0\nseed = 1\n"))
    for path in (tmp_path / "squares/train/red").iterdir():
        path.write_bytes(square("green", int(path.stem)))

    def fails(verb: str, *more: str) -> str:
        finished = subprocess.run(
            [sys.executable, "-m", "image_classifier", verb, "settings.toml", *more, "--local"],
            cwd=tmp_path,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode == 1, finished.stdout
        return finished.stderr

    assert "the training failed: the accuracy on the test images is" in fails("train")
    assert not model.exists()
    assert not model.with_name("output.tar.gz").exists()
    earlier = "the last training failed: .* is .launcher/squares/previous/model.tar.gz, for `deploy"
    assert re.search(earlier, fails("deploy", "--port", port))
    assert re.search(earlier, fails("predict", "squares/test/red/200.png"))
