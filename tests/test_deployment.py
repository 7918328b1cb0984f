"""Servers in containers, and what killed commands leave in the Docker engine."""

import json
import os
import socketserver
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from container.classifier.errors import UserError
from image_classifier.cli import main
from image_classifier.local import server
from image_classifier.local.packing import pack
from image_classifier.platform import deployment, opt_ml, processes
from image_classifier.platform.sandbox import labels
from image_classifier.platform.sandbox.launch import Launch, SandboxError
from tests.bodies import PNG
from tests.containers import docker
from tests.processes import free_port
from tests.settings_files import read, write

PRINT_LABELS = """
from pathlib import Path
from image_classifier.platform.sandbox import labels
from image_classifier.platform.sandbox.launch import Launch

print(labels.of(Launch(base_dir=Path("ml"), folders={}))[labels.STARTER])
"""


def launch(folder: Path, port: int | None = None) -> Launch:
    published = None if port is None else ("127.0.0.1", port)
    return Launch(base_dir=folder, folders={}, published=published)


def test_program_of_a_running_process_is_not_left(tmp_path: Path) -> None:
    assert not labels.is_left(labels.of(launch(tmp_path)))
    assert not labels.is_left(labels.of_command())


def test_program_of_a_process_that_has_ended_is_left() -> None:
    command = [sys.executable, "-c", PRINT_LABELS]
    starter = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    host, _, start = starter.split()

    assert labels.is_left({labels.STARTER: starter})
    # Another process has the number of that one.
    assert labels.is_left({labels.STARTER: f"{host} {os.getpid()} {start}"})


@pytest.mark.parametrize("starter", ["elsewhere 999999999 1", "odd", "", "a b c d"])
def test_program_of_another_machine_is_not_left(starter: str) -> None:
    assert not labels.is_left({labels.STARTER: starter})
    assert not labels.is_left({})


def test_server_outlives_its_starter(tmp_path: Path) -> None:
    deployed = labels.of(launch(tmp_path / "deployed", 8123))
    job = labels.of(launch(tmp_path / "ml"))

    assert labels.is_server_of(deployed, tmp_path)
    assert not labels.is_server_of(deployed, tmp_path / "ml")
    assert not labels.is_server_of(job, tmp_path)
    ended = deployed[labels.STARTER].replace(str(os.getpid()), "999999999")
    assert not labels.is_left({**deployed, labels.STARTER: ended})
    assert labels.is_left({**job, labels.STARTER: ended})


# Freeing its memory takes longer than killing it.
TRAIN = """
import time
from pathlib import Path
from container.classifier.locks import locked

memory = b"1" * 3 * 10**8
with locked(Path(".")):
    print("started", flush=True)
    time.sleep(600)
"""

LEAVE_A_PROCESS = f"""
import os
import sys
from pathlib import Path
from image_classifier.platform.sandbox.launch import Launch
from image_classifier.platform.sandbox.process_target import ProcessTarget

target = ProcessTarget([sys.executable, "-c", {TRAIN!r}])
target.start(Launch(base_dir=Path("."), folders={{}}, output=(1, 1)))
os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="processes are found in /proc")
def test_processes_of_a_killed_command_are_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_engine(_seconds: float) -> None:
        raise SandboxError("no Docker engine")

    # The engine would take the time in which the process ends.
    monkeypatch.setattr(deployment, "connect", no_engine)
    command = [sys.executable, "-c", LEAVE_A_PROCESS]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE) as starter:
        assert starter.stdout
        assert starter.stdout.readline() == b"started\n"
        starter.wait()

        deployment.stop(tmp_path)

        # The next training starts at once.
        opt_ml.require_no_training(tmp_path)
        # The output ends with all processes that have it.
        assert starter.stdout.read() == b""


@pytest.mark.docker
def test_server_that_has_ended_has_a_log_until_it_is_stopped(tmp_path: Path) -> None:
    (tmp_path / "ml").mkdir()
    found = labels.of(launch(tmp_path / "ml", 8123))
    options = [f"--label={name}={value}" for name, value in found.items()]
    code = "print('no model'); exit(3)"
    docker("run", *options, "python:3.11-slim-bookworm", "python", "-c", code, check=False)

    deployment.save_logs(tmp_path)

    assert (tmp_path / "ml" / processes.LOG_FILE).read_text() == "no model\n"
    with pytest.raises(UserError, match="the server ended with exit code 3: read `logs --local"):
        server.port(tmp_path)
    assert not deployment.stop(tmp_path)
    with pytest.raises(UserError, match="no server of these settings is running"):
        server.port(tmp_path)


def test_link_in_place_of_the_deployed_model_is_replaced(
    tmp_path: Path, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "deployed" / "model"
    model.parent.mkdir()
    (tmp_path / "linked").mkdir()
    model.symlink_to(tmp_path / "linked")
    pack(artifact, archive := tmp_path / "model.tar.gz")
    monkeypatch.setattr(processes, "serve", lambda *_: None)

    server.deploy(read(tmp_path), tmp_path, archive, free_port())

    assert not model.is_symlink()
    assert (model / "manifest.json").is_file()
    assert (tmp_path / "linked").is_dir()


@pytest.mark.parametrize("response", ["SSH-2.0", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"])
def test_response_that_is_not_http_is_a_mistake(tmp_path: Path, response: str) -> None:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.request.recv(2**20)
            self.wfile.write(response.encode())

    image = tmp_path / "image.png"
    image.write_bytes(PNG)
    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as other:
        threading.Thread(target=other.handle_request).start()

        with pytest.raises(UserError, match="no server responds on port"):
            next(server.predict([image], other.server_address[1]))


class Echo(BaseHTTPRequestHandler):
    """Responds with the status and the body that the request's body has."""

    def do_POST(self) -> None:
        status, body = self.rfile.read(int(self.headers["Content-Length"])).split(b" ", 1)
        self.send_response(int(status))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Log nothing."""


def test_images_that_the_server_rejects_leave_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prediction = '{"class_name": "cat", "probability": 1, "ranking": [{}]}'
    error = '{"error": {"code": "bad", "message": "no good"}}'
    bodies = {
        "a.png": f"422 {error}",
        "b.png": f'200 {{"predictions": [{error}]}}',
        "c.png": f'200 {{"predictions": [{prediction}]}}',
        "d.png": f"503 {error}",
        "e.png": f"404 {error}",
    }
    for name, body in bodies.items():
        (tmp_path / name).write_text(body)
    (tmp_path / "link.png").symlink_to("nowhere")
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as echo:
        threading.Thread(target=echo.serve_forever, daemon=True).start()

        def predict(*names: str) -> tuple[int, str, str]:
            images = [str(tmp_path / name) for name in names]
            command = ["predict", str(write(tmp_path)), *images, "--local", "--json"]
            code = main([*command, "--port", str(echo.server_port)])
            return code, *capsys.readouterr()

        code, output, errors = predict("a.png", "b.png", "link.png", "c.png")
        assert code == 1
        rejected = json.loads(error)
        unread = {"code": "not_sent", "message": "cannot be read: No such file or directory"}
        answers = [rejected, rejected, {"error": unread}, {"predictions": [json.loads(prediction)]}]
        assert list(map(json.loads, output.splitlines())) == answers
        assert errors == "image-classifier: 3 of 4 images were rejected\n"
        for name in ("d.png", "e.png"):
            assert predict(name, "c.png") == (1, "", "image-classifier: no good\n")
        echo.shutdown()


@pytest.mark.parametrize("host", ["unix://{}/none.sock", "odd://x"])
def test_without_an_engine_no_server_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", host.format(tmp_path))

    assert not deployment.stop(tmp_path)
    assert deployment.port_of_server(tmp_path) is None
    with pytest.raises(UserError, match="no server of these settings is running"):
        server.port(tmp_path)
    deployment.save_logs(tmp_path)
