"""SageMaker's side of the contract on this machine: the tree, the programs, the commands."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_test import opt_ml, processes
from local_test.__main__ import SAMPLE_HYPERPARAMETERS, SAMPLE_PICTURES, main
from local_test.errors import UserError

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
    """Make a folder in place of /opt/ml, with a small data set of one's own in it."""
    pictures = _own_pictures(tmp_path)
    base_dir = tmp_path / "opt_ml"
    assert main(["prepare", "--base-dir", str(base_dir), "--data", str(pictures)]) == 0
    return base_dir


@pytest.fixture
def free_port() -> int:
    """Find a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _own_pictures(tmp_path: Path) -> Path:
    pictures = tmp_path / "pictures"
    for class_name in ("cat", "dog"):
        (pictures / "training" / class_name).mkdir(parents=True)
        (pictures / "training" / class_name / "1.png").write_bytes(class_name.encode())
    return pictures


def _program(tmp_path: Path, package: str, code: str) -> Path:
    """Write a program that stands in for training or serving; return its folder."""
    programs = tmp_path / "programs"
    (programs / package).mkdir(parents=True)
    (programs / package / "__main__.py").write_text(code)
    return programs


def _read_config(base_dir: Path, name: str) -> object:
    return json.loads((base_dir / "input/config" / f"{name}.json").read_text())


def _files(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_prepare_draws_sample_pictures_and_says_how_to_train_on_them(tmp_path: Path) -> None:
    assert main(["prepare", "--base-dir", str(tmp_path)]) == 0

    counts = {
        name: len(list((tmp_path / opt_ml.DATA / name).iterdir())) for name in SAMPLE_PICTURES
    }
    assert counts == SAMPLE_PICTURES
    assert _read_config(tmp_path, "hyperparameters") == SAMPLE_HYPERPARAMETERS


def test_the_tree_has_every_folder_of_a_job(base_dir: Path) -> None:
    folders = {str(path.relative_to(base_dir)) for path in base_dir.rglob("*") if path.is_dir()}

    assert folders >= {
        *("input", "input/config", "input/data", "input/data/training"),
        *("model", "output", "output/data", "checkpoints"),
    }


def test_config_files_are_what_the_service_writes(base_dir: Path) -> None:
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


def test_preparing_again_changes_nothing(base_dir: Path) -> None:
    main(["prepare", "--base-dir", str(base_dir), "--hyperparameters", "epochs=3"])
    before = _files(base_dir)

    assert main(["prepare", "--base-dir", str(base_dir)]) == 0

    assert _files(base_dir) == before


def test_given_hyperparameters_are_set_and_the_others_kept(base_dir: Path) -> None:
    main(["prepare", "--base-dir", str(base_dir), "--hyperparameters", "epochs=3", "seed=1"])
    main(["prepare", "--base-dir", str(base_dir), "--hyperparameters", "epochs=4"])

    assert _read_config(base_dir, "hyperparameters") == {"epochs": "4", "seed": "1"}


@pytest.mark.parametrize("text", ["epochs", "=3", ""])
def test_a_hyperparameter_without_name_or_value_is_refused(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["prepare", "--base-dir", str(tmp_path), "--hyperparameters", text])

    assert refused.value.code == 2
    assert "expected KEY=VALUE" in capsys.readouterr().err


def test_own_pictures_arrive_as_files_that_a_container_can_read(base_dir: Path) -> None:
    paths = sorted((base_dir / "input/data/training").rglob("*.png"))

    assert [path.read_text() for path in paths] == ["cat", "dog"]
    assert not any(path.is_symlink() for path in (base_dir / "input").rglob("*"))


def test_own_pictures_never_replace_others_unasked(
    base_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    (other / "training/bird").mkdir(parents=True)
    (other / "training/bird/1.png").write_bytes(b"bird")
    arguments = ["prepare", "--base-dir", str(base_dir), "--data", str(other)]

    assert main(arguments) == 1
    assert "add --replace" in capsys.readouterr().err
    assert (base_dir / "input/data/training/cat/1.png").is_file()

    assert main([*arguments, "--replace"]) == 0
    assert _files(base_dir / "input/data") == {"training/bird/1.png": b"bird"}
    # The folder they came from is not touched.
    assert (tmp_path / "pictures/training/cat/1.png").is_file()


def test_own_pictures_leave_nothing_of_the_sample(tmp_path: Path) -> None:
    base_dir = tmp_path / "opt_ml"
    main(["prepare", "--base-dir", str(base_dir)])

    own = str(_own_pictures(tmp_path))
    assert main(["prepare", "--base-dir", str(base_dir), "--data", own, "--replace"]) == 0

    assert opt_ml.channels(base_dir) == ["training"]
    assert _read_config(base_dir, "hyperparameters") == {}


def test_a_folder_without_a_training_channel_is_refused_with_what_is_expected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", "--base-dir", str(tmp_path / "a"), "--data", str(tmp_path / "b")]) == 1

    assert f"no folder {tmp_path / 'b' / 'training'}" in capsys.readouterr().err


def test_a_new_job_keeps_the_model_and_forgets_the_failure(base_dir: Path) -> None:
    (base_dir / "model/manifest.json").write_text("{}")
    (base_dir / opt_ml.FAILURE).write_text("out of luck")

    assert main(["prepare", "--base-dir", str(base_dir)]) == 0

    assert (base_dir / "model/manifest.json").is_file()
    assert not (base_dir / opt_ml.FAILURE).exists()


def test_training_without_a_tree_says_what_to_run_first(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run `python -m local_test prepare` first"):
        processes.train(tmp_path)


def test_training_gets_the_contract_and_its_exit_code_comes_back(
    base_dir: Path, tmp_path: Path
) -> None:
    code = """
import json, os, pathlib, sys
base_dir = pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"])
seen = {"argv": sys.argv[1:], "job": os.environ["TRAINING_JOB_NAME"]}
(base_dir / "output/data/seen.json").write_text(json.dumps(seen))
sys.exit(3)
"""

    assert processes.train(base_dir, _program(tmp_path, "training", code)) == 3

    seen = json.loads((base_dir / "output/data/seen.json").read_text())
    assert seen["argv"] == ["train"]
    assert seen["job"].startswith("local-")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_reaches_training_as_sigterm(
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

    assert processes.train(base_dir, _program(tmp_path, "training", code)) == 0
    thread.join()


def test_serving_without_a_model_says_what_to_run_first(base_dir: Path, free_port: int) -> None:
    with pytest.raises(UserError, match="run `python -m local_test train` first"):
        processes.serve(base_dir, free_port)


def test_serving_refuses_a_port_that_is_taken(base_dir: Path) -> None:
    (base_dir / "model/manifest.json").write_text("{}")
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(UserError, match=f"cannot listen on port {port} .*choose another"):
            processes.serve(base_dir, port)


def test_a_server_that_dies_is_reported_with_the_end_of_its_log(
    base_dir: Path, tmp_path: Path, free_port: int
) -> None:
    (base_dir / "model/manifest.json").write_text("{}")
    programs = _program(tmp_path, "serving", "raise SystemExit('no such model')")

    with pytest.raises(UserError, match=r"(?s)exit code 1; .*no such model"):
        processes.serve(base_dir, free_port, programs)


@pytest.fixture
def server(base_dir: Path, tmp_path: Path, free_port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a healthy stand-in for the server in the background."""
    (base_dir / "model/manifest.json").write_text("{}")
    process = processes.serve(base_dir, free_port, _program(tmp_path, "serving", HEALTHY_SERVER))
    yield process
    processes.stop(base_dir)
    process.wait()


def test_a_healthy_server_runs_until_it_is_stopped(
    base_dir: Path, server: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    assert server.poll() is None

    assert main(["stop", "--base-dir", str(base_dir)]) == 0
    assert server.wait() == -signal.SIGTERM
    assert main(["stop", "--base-dir", str(base_dir)]) == 0

    assert capsys.readouterr().out.endswith("the server is stopped\nno server was running\n")


def test_serving_again_replaces_the_server(
    base_dir: Path, server: subprocess.Popen[bytes], tmp_path: Path, free_port: int
) -> None:
    second = processes.serve(base_dir, free_port, tmp_path / "programs")

    assert server.wait() == -signal.SIGTERM
    assert second.poll() is None
    processes.stop(base_dir)
    second.wait()


def test_stop_never_ends_a_process_of_somebody_else(base_dir: Path) -> None:
    """A process number left from before a restart may mean anything by now."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as somebody:
        (base_dir / "serving.pid").write_text(str(somebody.pid))

        assert processes.stop(base_dir) is False

        assert somebody.poll() is None
        somebody.kill()


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_a_port_that_cannot_be_is_refused(
    port: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PORT", port)

    with pytest.raises(SystemExit):
        main(["serve"])

    assert f"expected a port from 1 to 65535, got '{port}'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_picture_drawn_trained_and_served_is_recognised(tmp_path: Path, free_port: int) -> None:
    command = [sys.executable, "-m", "local_test"]
    place = ["--base-dir", str(tmp_path)]

    def run(*arguments: str) -> None:
        subprocess.run([*command, *arguments, *place], cwd=REPOSITORY, check=True)

    run("prepare")
    run("train")
    run("serve", "--port", str(free_port))
    try:
        pictures = sorted((tmp_path / "input/data/validation").iterdir())[:12]
        answers = [_ask(free_port, picture) for picture in pictures]
    finally:
        run("stop")

    right = [
        _class_of(picture) == answer for picture, answer in zip(pictures, answers, strict=True)
    ]
    assert sum(right) >= 11


def _class_of(picture: Path) -> str:
    return picture.stem.rsplit("_", 1)[1]


def _ask(port: int, picture: Path) -> str:
    """Return the class that the server sees in a picture."""
    connection = http.client.HTTPConnection("localhost", port, timeout=10)
    headers = {"Content-Type": "image/png"}
    connection.request("POST", "/invocations", picture.read_bytes(), headers)
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    assert response.status == 200, body
    return str(json.loads(body)["predictions"][0]["class_name"])
