"""The local platform: the /opt/ml tree, the processes, the scripts."""

import fcntl
import http.client
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from container.classifier.errors import UserError
from container.classifier.locks import locked
from container.classifier.media_types import IMAGE_SUFFIXES
from image_classifier.platform import opt_ml, processes, training
from image_classifier.platform.__main__ import SAMPLE_HYPERPARAMETERS, SAMPLE_IMAGES, main
from image_classifier.platform.program import ROOT
from image_classifier.platform.sandbox import ports
from image_classifier.platform.sandbox.process_target import ProcessTarget

REPOSITORY = Path(__file__).resolve().parent.parent

HEALTHY_SERVER = """
import http.server, os

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

port = int(os.environ["SAGEMAKER_BIND_TO_PORT"])
http.server.HTTPServer(("0.0.0.0", port), Handler).serve_forever()
"""


@pytest.fixture
def base_dir(tmp_path: Path) -> Path:
    """Create a folder like /opt/ml with a small data set."""
    images = _own_images(tmp_path)
    base_dir = tmp_path / "opt_ml"
    assert prepare(base_dir, "--data", images) == 0
    return base_dir


@pytest.fixture
def free_port() -> int:
    """Return an unused port."""
    return ports.free_port()


def _own_images(tmp_path: Path) -> Path:
    images = tmp_path / "images"
    for class_name in ("cat", "dog"):
        (images / "training" / class_name).mkdir(parents=True)
        (images / "training" / class_name / "1.png").write_bytes(class_name.encode())
    return images


def prepare(base_dir: Path, *options: str | Path) -> int:
    return main(["prepare", "--base-dir", str(base_dir), *map(str, options)])


def _program(tmp_path: Path, package: str, code: str) -> Path:
    """Write a program that replaces training or serving; return its folder."""
    programs = tmp_path / "programs"
    (programs / "container" / package).mkdir(parents=True)
    for folder in (programs / "container", programs / "container" / package):
        (folder / "__init__.py").touch()
    (programs / "container" / package / "__main__.py").write_text(code)
    return programs


def _serve(base_dir: Path, port: int, root: Path = ROOT) -> subprocess.Popen[bytes]:
    return processes.serve(base_dir, port, processes.as_process(base_dir, port, root))


def _read_config(base_dir: Path, name: str) -> object:
    return json.loads((base_dir / "input/config" / f"{name}.json").read_text())


def _files(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_prepare_draws_sample_images_with_hyperparameters(tmp_path: Path) -> None:
    assert prepare(tmp_path) == 0

    counts = {name: len(list((tmp_path / opt_ml.DATA / name).iterdir())) for name in SAMPLE_IMAGES}
    assert counts == SAMPLE_IMAGES
    assert _read_config(tmp_path, "hyperparameters") == SAMPLE_HYPERPARAMETERS


def test_tree_has_every_folder_of_a_job(base_dir: Path) -> None:
    folders = {str(path.relative_to(base_dir)) for path in base_dir.rglob("*") if path.is_dir()}

    assert folders >= {
        *("input", "input/config", "input/data", "input/data/training"),
        *("model", "output", "output/data", "checkpoints"),
    }


def test_config_files_equal_those_of_sagemaker(base_dir: Path) -> None:
    assert _read_config(base_dir, "inputdataconfig") == {
        "training": {
            "TrainingInputMode": "File",
            "S3DistributionType": "FullyReplicated",
            "RecordWrapperType": "None",
        }
    }
    assert _read_config(base_dir, "resourceconfig") == {
        "current_host": "algo-1",
        "hosts": ["algo-1"],
        "network_interface_name": "eth0",
        "current_instance_type": "local",
        "current_group_name": "homogeneousCluster",
        "instance_groups": [
            {
                "instance_group_name": "homogeneousCluster",
                "instance_type": "local",
                "hosts": ["algo-1"],
            }
        ],
        "topology": None,
    }
    assert _read_config(base_dir, "hyperparameters") == {}


def test_second_prepare_changes_nothing(base_dir: Path) -> None:
    prepare(base_dir, "--hyperparameters", "epochs=3")
    before = _files(base_dir)

    assert prepare(base_dir) == 0

    assert _files(base_dir) == before


def test_hyperparameters_option_replaces_all_hyperparameters(base_dir: Path) -> None:
    prepare(base_dir, "--hyperparameters", "epochs=3", "sead=1")
    prepare(base_dir, "--hyperparameters", "epochs=4")

    assert _read_config(base_dir, "hyperparameters") == {"epochs": "4"}


@pytest.mark.parametrize(
    ("text", "found"), [("{", "is not JSON"), ("[1]", r"must be a JSON object, got \[1\]")]
)
def test_hyperparameters_that_are_not_an_object_are_rejected(
    base_dir: Path, text: str, found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (base_dir / opt_ml.HYPERPARAMETERS).write_text(text)

    assert prepare(base_dir) == 1
    assert re.search(f"hyperparameters.json {found}", capsys.readouterr().err)


@pytest.mark.parametrize("text", ["epochs", "=3", ""])
def test_hyperparameter_without_name_or_value_is_rejected(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exited:
        prepare(tmp_path, "--hyperparameters", text)

    assert exited.value.code == 2
    assert "expected NAME=VALUE" in capsys.readouterr().err


def test_own_images_are_files_that_a_container_can_read(base_dir: Path) -> None:
    paths = sorted((base_dir / "input/data/training").rglob("*.png"))

    assert [path.read_text() for path in paths] == ["cat", "dog"]
    assert not any(path.is_symlink() for path in (base_dir / "input").rglob("*"))


def test_own_images_replace_others_only_with_the_option(
    base_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    (other / "training/bird").mkdir(parents=True)
    (other / "training/bird/1.png").write_bytes(b"bird")

    assert prepare(base_dir, "--data", other) == 1
    assert "add --replace" in capsys.readouterr().err
    assert (base_dir / "input/data/training/cat/1.png").is_file()

    assert prepare(base_dir, "--data", other, "--replace") == 0
    assert _files(base_dir / "input/data") == {"training/bird/1.png": b"bird"}
    # The source folder does not change.
    assert (tmp_path / "images/training/cat/1.png").is_file()


def test_own_images_replace_the_whole_sample(tmp_path: Path) -> None:
    base_dir = tmp_path / "opt_ml"
    prepare(base_dir)

    own = _own_images(tmp_path)
    assert prepare(base_dir, "--data", own, "--replace") == 0

    assert opt_ml.channels(base_dir) == ["training"]
    assert _read_config(base_dir, "hyperparameters") == {}


def test_replace_without_data_restores_the_sample(base_dir: Path) -> None:
    (base_dir / "checkpoints/step-000000001.pt").write_bytes(b"of the own images")

    assert prepare(base_dir, "--replace") == 0

    counts = {name: len(list((base_dir / opt_ml.DATA / name).iterdir())) for name in SAMPLE_IMAGES}
    assert counts == SAMPLE_IMAGES
    assert _read_config(base_dir, "hyperparameters") == SAMPLE_HYPERPARAMETERS
    assert list((base_dir / "checkpoints").iterdir()) == []


def test_other_images_clear_the_checkpoints(base_dir: Path, tmp_path: Path) -> None:
    (base_dir / "checkpoints/step-000000001.pt").write_bytes(b"of other images")

    assert prepare(base_dir, "--data", tmp_path / "images", "--replace") == 0

    assert list((base_dir / "checkpoints").iterdir()) == []


@pytest.mark.parametrize("training", ["training", "train"])
@pytest.mark.parametrize("validation", ["validation", "val", "valid"])
def test_channels_are_found_under_all_accepted_names(
    tmp_path: Path, training: str, validation: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (training, validation, "test", "spare"):
        (tmp_path / "own" / name / "cat").mkdir(parents=True)
        (tmp_path / "own" / name / "cat/1.png").write_text(name)
    base_dir, own = tmp_path / "opt_ml", tmp_path / "own"

    assert prepare(base_dir, "--data", own) == 0

    channels = {name: content.decode() for name, content in _files(base_dir / opt_ml.DATA).items()}
    assert channels == {
        "training/cat/1.png": training,
        "validation/cat/1.png": validation,
        "test/cat/1.png": "test",
    }
    assert f"ignored in {own}: spare\n" in capsys.readouterr().out


def test_folder_without_a_training_channel_is_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("images", "labels"):
        (tmp_path / "own" / name).mkdir(parents=True)

    for own, found in (("own", "images/, labels/"), ("nothing", "no folders")):
        assert prepare(tmp_path / "opt_ml", "--data", tmp_path / own) == 1

        error = capsys.readouterr().err
        assert f"no folder {tmp_path / own / 'training'}" in error
        assert f"found {found}: expected training/" in error


def test_new_job_keeps_the_model_and_removes_the_failure(base_dir: Path) -> None:
    (base_dir / "model/manifest.json").write_text("{}")
    (base_dir / opt_ml.FAILURE).write_text("out of luck")

    assert prepare(base_dir) == 0

    assert (base_dir / "model/manifest.json").is_file()
    assert not (base_dir / opt_ml.FAILURE).exists()


def test_new_job_is_rejected_while_a_training_runs(base_dir: Path) -> None:
    (base_dir / "model/manifest.json").write_text("{}")

    with locked(base_dir), pytest.raises(UserError, match="another training is running"):
        opt_ml.start_job(base_dir)

    assert (base_dir / "model/manifest.json").is_file()


def test_training_without_a_tree_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run `python -m image_classifier.platform prepare` first"):
        training.train(tmp_path, training.as_process(tmp_path))


def test_training_gets_the_contract_and_returns_its_exit_code(
    base_dir: Path, tmp_path: Path
) -> None:
    code = """
import json, os, pathlib, sys
base_dir = pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"])
seen = {"argv": sys.argv[1:], "job": os.environ["TRAINING_JOB_NAME"]}
(base_dir / "output/data/seen.json").write_text(json.dumps(seen))
sys.exit(3)
"""

    programs = _program(tmp_path, "training", code)
    assert training.train(base_dir, training.as_process(base_dir, programs)) == 3

    seen = json.loads((base_dir / "output/data/seen.json").read_text())
    assert seen["argv"] == ["train"]
    assert seen["job"].startswith("local-")


def test_quiet_training_prints_into_its_log_only(
    base_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = "import sys; print('epoch=1', flush=True); print('epoch 1: 50 %', file=sys.stderr)"
    program = training.as_process(base_dir, _program(tmp_path, "training", code))

    assert training.train(base_dir, program, is_quiet=True) == 0

    assert capfd.readouterr() == ("", "")
    assert (base_dir / training.LOG_FILE).read_text() == "epoch=1\nepoch 1: 50 %\n"


def test_training_that_uses_more_memory_than_allowed_is_killed(
    base_dir: Path, tmp_path: Path
) -> None:
    code = "import time; data = b'x' * 2**28; time.sleep(60)"
    target, launch = training.as_process(base_dir, _program(tmp_path, "training", code))

    with pytest.raises(UserError) as error:
        training.train(base_dir, (target, replace(launch, memory=2**27)))

    assert str(error.value) == (
        "the training was killed: out of memory, with a limit of 128 MiB: "
        "give it more with --memory, or use a smaller batch_size or image_size"
    )


def test_stopped_run_is_continued_and_finished_run_is_not(tmp_path: Path) -> None:
    base_dir = tmp_path / "opt_ml"
    for class_name, gray in (("dark", 50), ("light", 200)):
        folder = tmp_path / "own/training" / class_name
        folder.mkdir(parents=True)
        for number in range(6):
            Image.new("L", (16, 16), gray + number).save(folder / f"{number}.png")
    settings = ["network=small", "image_size=16", "epochs=2", "checkpoint_interval_seconds=0"]
    prepare(base_dir, "--data", tmp_path / "own", "--hyperparameters", *settings)

    assert training.train(base_dir, training.as_process(base_dir)) == 0
    checkpoints = sorted((base_dir / "checkpoints").iterdir())
    assert checkpoints
    report = base_dir / "output/data/metrics.json"
    finished = report.read_text()

    # Like after a stop in the second epoch.
    report.write_text(json.dumps({"history": json.loads(finished)["history"][:1]}))
    prepare(base_dir)
    assert sorted((base_dir / "checkpoints").iterdir()) == checkpoints

    # Like after SIGKILL: the report is of the previous run.
    report.write_text(finished)
    os.utime(report, (0, 0))
    prepare(base_dir)
    assert sorted((base_dir / "checkpoints").iterdir()) == checkpoints

    os.utime(report)
    prepare(base_dir)
    assert list((base_dir / "checkpoints").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_signal_reaches_training_as_sigterm(
    base_dir: Path, tmp_path: Path, number: signal.Signals
) -> None:
    code = """
import os, pathlib, signal, time
base_dir = pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"])
signal.signal(signal.SIGTERM, lambda *_: exit(0))
signal.signal(signal.SIGINT, lambda *_: exit(4))
(base_dir / "listening").touch()
time.sleep(60)
exit(5)
"""

    def stop_when_listening() -> None:
        while not (base_dir / "listening").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=stop_when_listening)
    thread.start()

    programs = _program(tmp_path, "training", code)
    assert training.train(base_dir, training.as_process(base_dir, programs)) == 0
    thread.join()


# A shell starts at once, also on a busy machine.
INTERRUPTED = """
cd "$SAGEMAKER_BASE_DIR"
echo files: $(find model output -type f | wc -l)
stop() {
    kill $!; touch model/a output/failure; echo "$TRAINING_JOB_NAME" >checkpoints/1.pt; exit 1
}
trap stop TERM
if [ ! -e checkpoints/1.pt ]; then sleep 60 & wait; fi
[ "$(cat checkpoints/1.pt)" = "$TRAINING_JOB_NAME" ] && touch model/weights
"""


def test_interrupted_training_restarts_with_its_checkpoints_alone(
    base_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    program = ProcessTarget(["sh", "-c", INTERRUPTED]), training.as_process(base_dir)[1]
    capfd.readouterr()

    assert training.train(base_dir, program, interrupt_after=1) == 0

    log = "files: 0\ninterrupted after 1 s; restarted with 1 checkpoint files\nfiles: 0\n"
    assert (base_dir / training.LOG_FILE).read_text() == log
    assert capfd.readouterr().out == log
    # The name of the job is the same.
    assert _files(base_dir / "model") == {"weights": b""}
    assert _files(base_dir / "output") == {}


def test_training_that_ends_early_is_not_interrupted(base_dir: Path, tmp_path: Path) -> None:
    program = training.as_process(base_dir, _program(tmp_path, "training", "exit(3)"))

    assert training.train(base_dir, program, interrupt_after=60) == 3

    log = (base_dir / training.LOG_FILE).read_text()
    assert log == "not interrupted: the training ended within 60 s\n"


def test_serving_without_a_model_is_rejected(base_dir: Path, free_port: int) -> None:
    with pytest.raises(UserError, match=r"run `python -m image_classifier.platform train` first"):
        _serve(base_dir, free_port)


def test_multi_model_server_starts_without_a_model(
    base_dir: Path, tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGEMAKER_MULTI_MODEL", "true")

    process = _serve(base_dir, free_port, _program(tmp_path, "serving", HEALTHY_SERVER))

    assert processes.port_of_server(base_dir) == free_port
    assert processes.stop(base_dir)
    process.wait()


def test_port_in_use_is_rejected(base_dir: Path) -> None:
    (base_dir / "model/manifest.json").write_text("{}")
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(UserError, match=f"cannot listen on port {port} .*with --port"):
            _serve(base_dir, port)


def test_server_that_exits_is_reported_with_its_log(
    base_dir: Path, tmp_path: Path, free_port: int
) -> None:
    (base_dir / "model/manifest.json").write_text("{}")
    programs = _program(tmp_path, "serving", "raise SystemExit('no such model')")

    with pytest.raises(UserError, match=r"(?s)exit code 1; .*no such model"):
        _serve(base_dir, free_port, programs)


@pytest.fixture
def server(base_dir: Path, tmp_path: Path, free_port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a healthy fake server in the background."""
    (base_dir / "model/manifest.json").write_text("{}")
    process = _serve(base_dir, free_port, _program(tmp_path, "serving", HEALTHY_SERVER))
    yield process
    processes.stop(base_dir)
    process.wait()


def test_healthy_server_runs_until_it_is_stopped(
    base_dir: Path, server: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    assert server.poll() is None

    assert main(["stop", "--base-dir", str(base_dir)]) == 0
    assert server.wait() == -signal.SIGTERM
    assert main(["stop", "--base-dir", str(base_dir)]) == 0

    assert capsys.readouterr().out.endswith("the server is stopped\nno server was running\n")


def test_second_serve_replaces_the_server(
    base_dir: Path, server: subprocess.Popen[bytes], tmp_path: Path, free_port: int
) -> None:
    second = _serve(base_dir, free_port, tmp_path / "programs")

    assert server.wait() == -signal.SIGTERM
    assert second.poll() is None
    processes.stop(base_dir)
    second.wait()


def test_port_in_use_leaves_the_running_server_alone(
    base_dir: Path, server: subprocess.Popen[bytes]
) -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(UserError, match=f"cannot listen on port {port}"):
            _serve(base_dir, port)

    assert server.poll() is None


@pytest.mark.parametrize("is_after_the_check", [False, True])
def test_second_serve_is_rejected_while_the_first_starts(
    base_dir: Path,
    free_port: int,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_after_the_check: bool,
) -> None:
    (base_dir / "model/manifest.json").write_text("{}")
    path = base_dir / "serving.pid"
    with path.open("w") as pid_file:
        fcntl.flock(pid_file, fcntl.LOCK_EX)
        if is_after_the_check:
            pid_file.write("1 1")
            pid_file.flush()
            monkeypatch.setattr(processes, "port_of_server", lambda _base_dir: None)
            monkeypatch.setattr(processes, "stop", lambda _base_dir: False)

        with pytest.raises(UserError, match="a server is starting in this folder already"):
            _serve(base_dir, free_port)

        assert path.read_text() == ("1 1" if is_after_the_check else "")


def test_stop_leaves_other_processes_alone(base_dir: Path) -> None:
    """After a reboot, the process id in the file can belong to any process."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        (base_dir / "serving.pid").write_text(str(other.pid))

        assert processes.stop(base_dir) is False

        assert other.poll() is None
        other.kill()


def test_pid_file_that_is_replaced_before_it_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, flock = tmp_path / processes.PID_FILE, fcntl.flock

    def replace_first(file: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        path.unlink()
        path.touch()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", replace_first)
    with processes.starting(tmp_path) as pid_file:
        assert os.fstat(pid_file.fileno()).st_ino == path.stat().st_ino
    monkeypatch.setattr(fcntl, "flock", replace_first)
    processes.stop(tmp_path)

    assert path.exists()


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_invalid_port_is_rejected(
    port: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PORT", port)

    with pytest.raises(SystemExit):
        main(["serve"])

    assert f"expected a port from 1 to 65535, got '{port}'" in capsys.readouterr().err


FAILING_TRAINING = """
import os, pathlib, sys
print("error: out of luck", flush=True)
failure = pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"]) / "output/failure"
failure.write_text("out of luck")
sys.exit(1)
"""

# Docker without container images.
DOCKER = """#!/usr/bin/env bash
echo "docker $*" >>"$(dirname "$0")/calls"
[[ $1 == info ]]
"""


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the scripts with their dependencies, fake programs, and a tree with own images."""
    monkeypatch.delenv("SAGEMAKER_BASE_DIR", raising=False)
    clone = tmp_path / "clone"
    without_tree = shutil.ignore_patterns("test_dir", "__pycache__")
    shutil.copytree(REPOSITORY / "local_test", clone / "local_test", ignore=without_tree)
    shutil.copy(REPOSITORY / "Makefile", clone)
    (clone / ".venv").symlink_to(sys.prefix)
    _program(tmp_path, "training", FAILING_TRAINING)
    programs = _program(tmp_path, "serving", HEALTHY_SERVER)
    (programs / "container").rename(clone / "container")
    shutil.copytree(REPOSITORY / "container/classifier", clone / "container/classifier")
    shutil.copytree(
        REPOSITORY / "image_classifier", clone / "image_classifier", ignore=without_tree
    )
    images = tmp_path / "own"
    for name in ("b.jpg", "a.JPG", "Thumbs.db", ".hidden.png"):
        (images / "training/cat").mkdir(parents=True, exist_ok=True)
        (images / "training/cat" / name).write_text(name)
    assert prepare(clone / "local_test/test_dir", "--data", images) == 0
    return clone


def _run(clone: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run(
        command, cwd=clone, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def requests(free_port: int) -> Iterator[list[tuple[str, bytes]]]:
    """Serve on the free port; yield the media types and bodies of requests.

    Text gets 415, JSON is echoed.
    """
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            requests.append((self.headers["Content-Type"], body))
            self.send_response(415 if self.headers["Content-Type"] == "text/plain" else 200)
            self.end_headers()
            self.wfile.write(body if body.startswith(b"{") else b"answer")

    with http.server.HTTPServer(("127.0.0.1", free_port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield requests
        server.shutdown()
        thread.join()


def test_predict_without_a_file_sends_an_own_image(
    clone: Path, free_port: int, requests: list[tuple[str, bytes]]
) -> None:
    result = _run(clone, "make", "--silent", "predict", PORT=str(free_port))

    assert (result.returncode, result.stdout) == (0, "answer\n"), result.stderr
    assert requests == [("image/jpeg", b"a.JPG")]
    assert "sending local_test/test_dir/input/data/training/cat/a.JPG" in result.stderr


def test_predict_prefers_validation_images(
    clone: Path, free_port: int, requests: list[tuple[str, bytes]]
) -> None:
    validation = clone / "local_test/test_dir/input/data/validation"
    validation.mkdir()
    (validation / "1_cat.png").write_text("unseen")

    _run(clone, "local_test/predict.sh", PORT=str(free_port))

    assert requests == [("image/png", b"unseen")]


ANSWER = (
    r'{"predictions":[{"class_name":"\u00e9t\u00e9","probability":0.9,"probabilities":[0.1,0.9],'
    r'"ranking":[{"class_name":"\u00e9t\u00e9","probability":0.9},'
    r'{"class_name":"a, b","probability":0.1}]},{"error":{"code":"x","message":"no image"}}],'
    r'"class_names":["a, b","\u00e9t\u00e9"]}'
)


@pytest.mark.usefixtures("requests")
def test_predict_prints_a_line_per_prediction(clone: Path, free_port: int) -> None:
    (clone / "1.json").write_text(ANSWER)

    result = _run(clone, "make", "--silent", "predict", "FILE=1.json", PORT=str(free_port))

    assert result.stdout == "1.json: été (90.0%), next best a, b (10.0%)\n1.json: no image\n"


@pytest.mark.usefixtures("requests")
def test_predict_prints_the_response_as_json(clone: Path, free_port: int) -> None:
    (clone / "1.json").write_text(ANSWER)
    command = ("make", "--silent", "predict", "FILE=1.json", "JSON=yes")

    assert _run(clone, *command, PORT=str(free_port)).stdout == f"{ANSWER}\n"


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("1.jpg", "image/jpeg"),
        ("1.JPEG", "image/jpeg"),
        ("1.png", "image/png"),
        ("1.webp", "image/webp"),
        ("1.bmp", "application/octet-stream"),
        ("1.jsonl", "application/jsonlines"),
        ("1", "application/octet-stream"),
    ],
)
def test_predict_derives_the_media_type_from_the_name(
    clone: Path,
    free_port: int,
    requests: list[tuple[str, bytes]],
    name: str,
    content_type: str,
) -> None:
    (clone / name).write_text("image")

    _run(clone, "local_test/predict.sh", name, PORT=str(free_port))

    assert requests == [(content_type, b"image")]


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_predict_finds_images_of_every_accepted_suffix(clone: Path, suffix: str) -> None:
    channel = clone / "local_test/test_dir/input/data/validation"
    channel.mkdir()
    (channel / f"1_cat{suffix.upper()}").write_text("image")
    script = "source local_test/images.sh; first_image local_test/test_dir"

    result = _run(clone, "bash", "-c", script)

    assert result.stdout.endswith(f"/validation/1_cat{suffix.upper()}\n")


@pytest.mark.usefixtures("requests")
def test_error_response_does_not_suggest_that_the_server_is_down(
    clone: Path, free_port: int
) -> None:
    command = ("local_test/predict.sh", "Makefile", "text/plain")

    result = _run(clone, *command, PORT=str(free_port))

    assert (result.returncode, result.stdout) == (1, "answer\n")
    assert "415" in result.stderr
    assert "is the server up?" not in result.stderr


def test_failed_connection_suggests_that_the_server_is_down(clone: Path, free_port: int) -> None:
    result = _run(clone, "local_test/predict.sh", "Makefile", PORT=str(free_port))

    assert result.returncode == 1
    assert "is the server up?" in result.stderr


def test_failed_training_prints_its_reason_once_and_the_file(clone: Path) -> None:
    result = _run(clone, "local_test/train_local.sh")

    assert result.returncode == 1
    output = result.stdout + result.stderr
    assert output.count("out of luck") == 1
    assert str(clone / "local_test/test_dir/output/failure") in result.stderr
    assert "is ready" not in output


def test_serving_after_a_failed_training_is_rejected(clone: Path, free_port: int) -> None:
    tree = clone / "local_test/test_dir"
    (tree / "model/manifest.json").write_text("{}")
    (tree / opt_ml.FAILURE).write_text("out of luck")

    result = _run(clone, "local_test/serve_local.sh", PORT=str(free_port))

    assert result.returncode == 1
    assert f"the last training failed, see {tree / opt_ml.FAILURE}: fix it" in result.stderr


def test_failed_training_leaves_neither_server_nor_model(clone: Path, free_port: int) -> None:
    tree = clone / "local_test/test_dir"
    (tree / "model/manifest.json").write_text("{}")
    (tree / "output/data/report.html").write_text("of the earlier training")
    server = _serve(tree, free_port, clone)

    result = _run(clone, "local_test/train_local.sh")
    (tree / "output/data/records.json").write_text("of the failed training")
    _run(clone, "local_test/train_local.sh")

    assert "the server of the earlier model is stopped" in result.stdout
    assert server.wait() == -signal.SIGTERM
    assert _files(tree / "model") == {}
    assert _files(tree / "output") == {"failure": b"out of luck"}
    assert _files(tree / "previous") == {
        "model/manifest.json": b"{}",
        "output/data/report.html": b"of the earlier training",
    }


def test_other_images_keep_the_previous_results(base_dir: Path, tmp_path: Path) -> None:
    (base_dir / "model/manifest.json").write_text("{}")

    assert prepare(base_dir, "--data", tmp_path / "images", "--replace") == 0

    assert _files(base_dir / "model") == {}
    assert _files(base_dir / "previous") == {"model/manifest.json": b"{}"}


def test_own_server_listens_on_this_machine_only(
    base_dir: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bound() -> str:
        program = processes.as_process(base_dir, free_port)
        return program.variables["GUNICORN_CMD_ARGS"].split()[-1]

    monkeypatch.delenv("BIND_ADDRESS", raising=False)
    assert bound() == f"127.0.0.1:{free_port}"
    monkeypatch.setenv("BIND_ADDRESS", "0.0.0.0")
    assert bound() == f"0.0.0.0:{free_port}"
    assert processes.client_address(free_port) == ("127.0.0.1", free_port)
    monkeypatch.setenv("BIND_ADDRESS", "127.0.0.2")
    assert processes.client_address(free_port) == ("127.0.0.2", free_port)


@pytest.mark.parametrize("script", ["train_local.sh", "serve_local.sh"])
def test_missing_container_image_is_not_pulled(clone: Path, script: str) -> None:
    docker = clone / "bin/docker"
    docker.parent.mkdir()
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    path = f"{docker.parent}{os.pathsep}{os.environ['PATH']}"

    result = _run(clone, f"local_test/{script}", "image-clasifier", PATH=path)

    assert result.returncode == 1
    assert "no container image image-clasifier: `docker compose build` creates" in result.stderr
    assert "docker run" not in (docker.parent / "calls").read_text()


@pytest.mark.slow
def test_drawn_images_are_trained_served_and_recognized(tmp_path: Path, free_port: int) -> None:
    command = [sys.executable, "-m", "image_classifier.platform"]
    base_dir = ["--base-dir", str(tmp_path)]

    def run(*arguments: str) -> None:
        subprocess.run([*command, *arguments, *base_dir], cwd=REPOSITORY, check=True)

    run("prepare")
    run("train")
    run("serve", "--port", str(free_port))
    try:
        images = sorted((tmp_path / "input/data/validation").iterdir())[:12]
        predictions = [_predict(free_port, image) for image in images]
    finally:
        run("stop")

    pairs = zip(images, predictions, strict=True)
    assert sum(_class_of(image) == prediction for image, prediction in pairs) >= 11


def _class_of(image: Path) -> str:
    return image.stem.rsplit("_", 1)[1]


def _predict(port: int, image: Path) -> str:
    """Return the class that the server predicts."""
    connection = http.client.HTTPConnection("localhost", port, timeout=10)
    headers = {"Content-Type": "image/png"}
    connection.request("POST", "/invocations", image.read_bytes(), headers)
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    assert response.status == 200, body
    return str(json.loads(body)["predictions"][0]["class_name"])
