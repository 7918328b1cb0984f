"""SageMaker's contract for a serving container, line by line, against the real program.

The numbers in the names are those of the contract's checklist; 12, 13 and 16 need an engine and
stand in `test_serving_image.py`.
"""

import base64
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from classifier.preprocessing import Pixels
from tests.artifacts import CLASS_NAMES, encode, random_pixels
from tests.servers import CONTAINER, Server, request, serving, starting

PIXELS = random_pixels()
PNG = encode(PIXELS)
JPEG = encode(PIXELS, "JPEG")
WEBP = encode(PIXELS, "WEBP")


def npy(array: Pixels) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def instances(*pictures: bytes) -> bytes:
    return json.dumps(
        {"instances": [{"b64": base64.b64encode(data).decode()} for data in pictures]}
    ).encode()


def in_chunks(data: bytes, size: int = 1000) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


@pytest.fixture(scope="module")
def base_dir(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("ml")
    shutil.copytree(artifact, directory / "model")
    return directory


@pytest.fixture(scope="module")
def server(base_dir: Path) -> Iterator[Server]:
    with serving(base_dir) as running:
        yield running


@pytest.mark.parametrize("arguments", [("serve",), ()])
def test_1_serve_starts_the_server_and_so_does_no_argument(
    base_dir: Path, arguments: tuple[str, ...]
) -> None:
    with starting(base_dir, *arguments) as server:
        assert server.wait_for_ping(200).body == b""


def test_1_another_argument_is_refused_with_the_right_one_named() -> None:
    program = subprocess.run(
        [sys.executable, "-m", "serving", "train"],
        env={**os.environ, "PYTHONPATH": str(CONTAINER)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert program.returncode == 2
    assert "invalid choice: 'train'" in program.stderr
    assert "serve" in program.stderr


def test_2_the_port_is_the_one_of_sagemaker_bind_to_port_and_no_second_is_opened(
    base_dir: Path,
) -> None:
    with serving(base_dir, SAGEMAKER_SAFE_PORT_RANGE="21000-21010") as server:
        assert server.get("/ping").status == 200
        for port in range(21000, 21011):
            with socket.socket() as client:
                assert client.connect_ex(("127.0.0.1", port)) != 0


def test_3_ping_is_503_while_loading_and_200_with_an_empty_body_after(
    base_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(base_dir / "model", tmp_path / "model")
    manifest = tmp_path / "model" / "manifest.json"
    content = manifest.read_bytes()
    manifest.unlink()
    # Loading waits until something is written into the pipe.
    os.mkfifo(manifest)

    with starting(tmp_path) as server:
        loading = server.wait_for_ping(503)
        refused = server.invoke(PNG)
        manifest.write_bytes(content)
        ready = server.wait_for_ping(200)

    assert json.loads(loading.body)["error"]["message"] == "the model is being loaded"
    assert refused.status == 503
    assert ready.body == b""


def test_3_ping_answers_within_two_seconds_under_full_load(server: Server) -> None:
    heavy = encode(random_pixels(1500, 2000), "JPEG")
    stopping = threading.Event()

    def keep_busy() -> None:
        while not stopping.is_set():
            server.invoke(heavy, "image/jpeg")

    clients = [threading.Thread(target=keep_busy) for _ in range(64)]
    for client in clients:
        client.start()
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        assert server.get("/ping").status == 200
        seconds.append(time.perf_counter() - start)
        time.sleep(0.1)
    stopping.set()
    for client in clients:
        client.join()

    assert max(seconds) < 2


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("image/jpeg", JPEG),
        ("image/jpg", JPEG),
        ("image/png", PNG),
        ("image/webp", WEBP),
        ("application/x-image", PNG),
        ("application/octet-stream", JPEG),
        ("application/octet-stream", npy(PIXELS)),
        ("application/x-npy", npy(PIXELS)),
        ("application/json", instances(PNG)),
        ("IMAGE/PNG; charset=binary", PNG),
    ],
)
def test_4_every_content_type_is_predicted(server: Server, content_type: str, body: bytes) -> None:
    answer = server.invoke(body, content_type)

    assert answer.status == 200, answer.body
    assert answer.headers["Content-Type"] == "application/json"
    document = json.loads(answer.body)
    assert document["class_names"] == list(CLASS_NAMES)
    (prediction,) = document["predictions"]
    assert prediction["class_name"] in CLASS_NAMES
    assert prediction["probability"] == max(prediction["probabilities"])
    assert sum(prediction["probabilities"]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("text/csv", "text/csv"),
        ("application/jsonlines", "application/jsonlines"),
        ("application/json;q=0.1, text/csv;q=0.9", "text/csv"),
        ("image/png, */*;q=0.5", "application/json"),
    ],
)
def test_4_accept_decides_the_answers_type(
    server: Server, accept: str | None, content_type: str
) -> None:
    answer = server.invoke(PNG, accept=accept)

    assert answer.status == 200
    assert answer.headers["Content-Type"] == content_type


@pytest.mark.parametrize(
    ("content_type", "accept", "body", "status"),
    [
        ("text/plain", None, PNG, 415),
        ("image/png", "image/png", PNG, 406),
        ("image/png", None, b"", 400),
        ("application/json", None, b"{", 400),
        ("image/png", None, b"not a picture", 422),
        ("image/png", None, PNG[: len(PNG) // 2], 422),
    ],
)
def test_4_what_cannot_be_done_is_the_clients_fault_in_json(
    server: Server, content_type: str, accept: str | None, body: bytes, status: int
) -> None:
    answer = server.invoke(body, content_type, accept)

    assert answer.status == status
    assert answer.headers["Content-Type"] == "application/json"
    assert set(json.loads(answer.body)["error"]) == {"code", "message"}
    assert len(answer.body) < 2048
    assert server.invoke(PNG).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/", 404), ("GET", "/invocations", 405)]
)
def test_4_an_unknown_place_or_method_is_answered_in_json(
    server: Server, method: str, path: str, status: int
) -> None:
    answer = request(server.port, method, path)

    assert answer.status == status
    assert json.loads(answer.body)["error"]["message"]


@pytest.mark.parametrize("chunked", [False, True])
def test_5_an_oversized_body_is_413_and_the_client_reads_it(
    base_dir: Path, *, chunked: bool
) -> None:
    with serving(base_dir, SAGEMAKER_MAX_PAYLOAD_IN_MB="1") as server:
        body = bytes(5 * 2**20)
        answer = server.invoke(in_chunks(body, 2**16) if chunked else body)

        assert answer.status == 413
        assert "larger than 1 MB" in json.loads(answer.body)["error"]["message"]
        assert server.invoke(PNG).status == 200


def test_5_bodies_up_to_25_mb_are_taken(server: Server) -> None:
    picture = np.zeros((2048, 4096, 3), np.uint8)

    assert server.invoke(npy(picture), "application/x-npy").status == 200
    assert server.invoke(npy(np.zeros((3000, 3000, 3), np.uint8))).status == 413


@pytest.mark.parametrize("body", [PNG, b"not a picture"])
def test_6_custom_attributes_are_returned(server: Server, body: bytes) -> None:
    answer = server.invoke(
        body, X_Amzn_SageMaker_Custom_Attributes="trace=1; c=ü".encode("latin-1").decode("latin-1")
    )

    assert answer.headers["X-Amzn-SageMaker-Custom-Attributes"] == "trace=1; c=ü"


def test_7_the_model_folder_is_only_read_and_may_hold_the_tar_gz(
    artifact: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(artifact, model)
    (model / "model.tar.gz").write_bytes(b"not looked into")
    before = {path: path.stat().st_mtime_ns for path in [model, *model.rglob("*")]}

    with serving(tmp_path) as server:
        assert server.invoke(PNG).status == 200

    assert {path: path.stat().st_mtime_ns for path in [model, *model.rglob("*")]} == before


def test_3_ping_answers_while_clients_stall_in_their_bodies(base_dir: Path) -> None:
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
    with serving(base_dir) as server:
        stalling = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(150)]
        for client in stalling:
            client.sendall(head + b"Content-Length: 1000\r\n\r\nthe beginning")
        time.sleep(0.5)

        for _ in range(10):
            start = time.perf_counter()
            assert server.get("/ping").status == 200
            assert time.perf_counter() - start < 2
            time.sleep(0.2)
        for client in stalling:
            client.close()


def test_8_sigterm_under_load_loses_no_request_and_exits_0_within_30_seconds(
    base_dir: Path,
) -> None:
    heavy = encode(random_pixels(1500, 2000), "JPEG")
    outcomes: list[int | str] = []

    with serving(base_dir) as server:

        def ask_until_refused() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
            while True:
                try:
                    connection.request(
                        "POST", "/invocations", heavy, {"Content-Type": "image/jpeg"}
                    )
                    response = connection.getresponse()
                    response.read()
                    outcomes.append(response.status)
                except ConnectionRefusedError:
                    return
                except (OSError, http.client.HTTPException) as error:
                    outcomes.append(repr(error))
                    return

        clients = [threading.Thread(target=ask_until_refused) for _ in range(16)]
        for client in clients:
            client.start()
        time.sleep(1)
        server.process.send_signal(signal.SIGTERM)
        status = server.process.wait(30)
        for client in clients:
            client.join()

    assert status == 0
    assert set(outcomes) == {200}


def test_8_sigterm_while_loading_ends_at_once(base_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(base_dir / "model", tmp_path / "model")
    manifest = tmp_path / "model" / "manifest.json"
    manifest.unlink()
    os.mkfifo(manifest)

    with starting(tmp_path) as server:
        server.wait_for_ping(503)
        server.process.send_signal(signal.SIGTERM)

        assert server.process.wait(10) == 0


def test_9_execution_parameters_have_sagemakers_three_keys(server: Server) -> None:
    answer = server.get("/execution-parameters")

    document = json.loads(answer.body)
    assert answer.status == 200
    assert document == {
        "MaxConcurrentTransforms": document["MaxConcurrentTransforms"],
        "BatchStrategy": "SINGLE_RECORD",
        "MaxPayloadInMB": 6,
    }
    assert 1 <= document["MaxConcurrentTransforms"] * document["MaxPayloadInMB"] <= 100


def test_10_in_a_transform_job_bodies_may_have_100_mb(base_dir: Path) -> None:
    with serving(base_dir, SAGEMAKER_BATCH="true") as server:
        picture = np.zeros((3000, 3000, 3), np.uint8)

        assert server.invoke(npy(picture), "application/x-npy").status == 200
        assert server.get("/execution-parameters").status == 200


def test_10_local_mode_gets_no_execution_parameters_for_it_fails_on_them(base_dir: Path) -> None:
    with serving(
        base_dir, SAGEMAKER_BATCH="True", SAGEMAKER_MAX_CONCURRENT_TRANSFORMS="1"
    ) as server:
        assert server.get("/execution-parameters").status == 404
        assert server.invoke(PNG).status == 200


def test_11_a_chunked_body_is_read(server: Server) -> None:
    assert server.invoke(in_chunks(PNG)).body == server.invoke(PNG).body


def test_14_a_missing_model_ends_the_process_with_a_sentence(tmp_path: Path) -> None:
    with starting(tmp_path) as server:
        status = server.process.wait(30)

        log = server.log.read_text()
        assert status != 0
        assert "no manifest.json in" in log
        assert "Traceback" not in log


def test_14_a_model_that_answers_otherwise_than_in_training_ends_the_process(
    artifact: Path, other_artifact: Path, tmp_path: Path
) -> None:
    shutil.copytree(artifact, tmp_path / "model")
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text())
    other = json.loads((other_artifact / "manifest.json").read_text())
    shutil.copy(other_artifact / "model.onnx", tmp_path / "model" / "model.onnx")
    manifest["files"]["model.onnx"] = other["files"]["model.onnx"]
    (tmp_path / "model" / "manifest.json").write_text(json.dumps(manifest))

    with starting(tmp_path) as server:
        status = server.process.wait(30)

        assert status != 0
        assert "differs from training's" in server.log.read_text()


def test_14_a_worker_killed_while_loading_ends_the_process(base_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(base_dir / "model", tmp_path / "model")
    manifest = tmp_path / "model" / "manifest.json"
    manifest.unlink()
    os.mkfifo(manifest)

    with starting(tmp_path) as server:
        server.wait_for_ping(503)
        os.kill(server.worker(), signal.SIGKILL)

        assert server.process.wait(10) != 0


def test_14_a_worker_killed_while_serving_is_replaced(base_dir: Path) -> None:
    with serving(base_dir) as server:
        os.kill(server.worker(), signal.SIGKILL)
        time.sleep(0.2)
        server.wait_for_ping(200)

        assert server.invoke(PNG).status == 200


@pytest.mark.parametrize(
    ("content_type", "body"),
    [("image/jpeg", JPEG), ("image/png", PNG), ("application/x-npy", npy(PIXELS))],
)
def test_15_clarify_gets_the_full_score_vector_in_class_order(
    server: Server, content_type: str, body: bytes
) -> None:
    as_json = json.loads(server.invoke(body, content_type, "application/json").body)
    as_csv = server.invoke(body, content_type, "text/csv").body.decode()
    as_line = json.loads(server.invoke(body, content_type, "application/jsonlines").body)

    scores = as_json["predictions"][0]["probabilities"]
    assert len(scores) == len(CLASS_NAMES)
    assert [float(text) for text in as_csv.split(",")] == scores
    assert as_line["probabilities"] == scores


def test_the_same_pixels_get_the_same_answer_in_every_form(server: Server) -> None:
    answers = {
        server.invoke(PNG).body,
        server.invoke(npy(PIXELS), "application/x-npy").body,
        server.invoke(instances(PNG), "application/json").body,
        server.invoke(encode(PIXELS, "BMP"), "application/x-image").body,
    }

    assert len(answers) == 1


def test_a_request_is_logged_on_one_line_and_a_ping_is_not(base_dir: Path) -> None:
    with serving(base_dir) as server:
        server.invoke(instances(PNG, PNG), "application/json")
        server.get("/ping")

        log = server.log.read_text()

    (line,) = [line for line in log.splitlines() if "request=" in line]
    assert "request=invocations status=200 milliseconds=" in line
    assert line.endswith("pictures=2")


def test_a_wrong_setting_is_said_before_anything_starts(base_dir: Path) -> None:
    with starting(base_dir, SAGEMAKER_MAX_PAYLOAD_IN_MB="much") as server:
        assert server.process.wait(10) == 1
        assert "SAGEMAKER_MAX_PAYLOAD_IN_MB must be a whole number" in server.log.read_text()


def test_openvino_tells_nobody_of_the_start(base_dir: Path, tmp_path: Path) -> None:
    with serving(base_dir, HOME=str(tmp_path), CI="", TF_BUILD="", JENKINS_URL="") as server:
        assert server.invoke(PNG).status == 200

    assert list(tmp_path.iterdir()) == []
