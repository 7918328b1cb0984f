"""SageMaker's contract for a serving container: start, health checks and end of the program.

The numbers in the names are those of the contract's checklist.
"""

import fcntl
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import pytest

from container.serving.http.connection import block_on_sigterm
from tests.artifacts import encode, random_pixels
from tests.bodies import PNG
from tests.servers import receive_all, serving, starting, stop_under_load


@pytest.fixture(scope="module")
def base_dir(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("ml")
    shutil.copytree(artifact, directory / "model")
    return directory


@contextmanager
def blocked_loading(base_dir: Path, copy: Path) -> Iterator[Callable[[], None]]:
    """Copy the model; opening its network blocks until the yielded function is called."""
    shutil.copytree(base_dir / "model", copy / "model")
    # The kernel delays an open for as long as another process has a lease (45 s at most), and
    # sends SIGIO, which would end the tests.
    previous = signal.signal(signal.SIGIO, signal.SIG_IGN)
    with (copy / "model" / "model.onnx").open("r+b") as network:

        def release() -> None:
            fcntl.fcntl(network, fcntl.F_SETLEASE, fcntl.F_UNLCK)

        fcntl.fcntl(network, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        yield release
    # Closing the file ended the lease.
    signal.signal(signal.SIGIO, previous)


@pytest.mark.parametrize("arguments", [("serve",), ()])
def test_1_server_starts_with_serve_or_without_arguments(
    base_dir: Path, arguments: tuple[str, ...]
) -> None:
    with starting(base_dir, *arguments) as server:
        assert server.wait_for_ping(200).body == b""


def test_1_unknown_argument_is_rejected() -> None:
    program = subprocess.run(
        [sys.executable, "-m", "container.serving", "train"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert program.returncode == 2
    assert "invalid choice: 'train'" in program.stderr
    assert "serve" in program.stderr


def test_2_server_listens_only_on_sagemaker_bind_to_port(
    base_dir: Path,
) -> None:
    with serving(base_dir, SAGEMAKER_SAFE_PORT_RANGE="21000-21010") as server:
        assert server.get("/ping").status == 200
        for port in range(21000, 21011):
            with socket.socket() as client:
                assert client.connect_ex(("127.0.0.1", port)) != 0


def test_3_ping_is_503_while_loading_then_200_with_an_empty_body(
    base_dir: Path, tmp_path: Path
) -> None:
    with blocked_loading(base_dir, tmp_path) as release, starting(tmp_path) as server:
        loading = server.wait_for_ping(503)
        rejected = server.invoke(PNG)
        release()
        ready = server.wait_for_ping(200)

    assert json.loads(loading.body)["error"]["message"] == "the model is being loaded"
    assert rejected.status == 503
    assert ready.body == b""


def test_3_ping_answers_under_full_load(base_dir: Path) -> None:
    heavy = encode(random_pixels(1500, 2000), "JPEG")
    stopping = threading.Event()
    statuses: list[int] = []

    with serving(base_dir) as server:

        def keep_busy() -> None:
            while not stopping.is_set():
                statuses.append(server.invoke(heavy, "image/jpeg").status)

        clients = [threading.Thread(target=keep_busy) for _ in range(64)]
        for client in clients:
            client.start()
        # benchmarks/serving measures how fast it answers.
        for _ in range(20):
            assert server.ping_soon().status == 200
            time.sleep(0.1)
        stopping.set()
        for client in clients:
            client.join()

    assert set(statuses) <= {200, 503}


def test_7_model_folder_is_not_changed_and_may_contain_model_tar_gz(
    artifact: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(artifact, model)
    (model / "model.tar.gz").write_bytes(b"not read")
    before = {path: path.stat().st_mtime_ns for path in [model, *model.rglob("*")]}

    with serving(tmp_path) as server:
        assert server.invoke(PNG).status == 200

    assert {path: path.stat().st_mtime_ns for path in [model, *model.rglob("*")]} == before


def test_3_ping_answers_while_clients_stall_within_bodies(base_dir: Path) -> None:
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
    with serving(base_dir) as server:
        stalling = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(150)]
        for client in stalling:
            client.sendall(head + b"Content-Length: 1000\r\n\r\nthe beginning")
        time.sleep(0.5)

        for _ in range(10):
            assert server.ping_soon().status == 200
            time.sleep(0.2)
        for client in stalling:
            client.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /ping HTTP/1.1\r\nHost: x\r\n",
        b"POST /invocations HTTP/1.1\r\nHost: x\r\n",
        b"GET /ping HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n",
        b"\x16\x03\x01",
    ],
    ids=["head of /ping", "head of a request", "body of /ping", "TLS"],
)
def test_3_stalled_clients_do_not_delay_others(base_dir: Path, sent: bytes) -> None:
    with serving(base_dir) as server:
        stalling = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(150)]
        for client in stalling:
            client.sendall(sent)
        time.sleep(0.5)

        for _ in range(5):
            assert server.ping_soon().status == 200
        assert server.invoke(PNG).status == 200
        for client in stalling:
            client.close()


def test_3_partial_next_request_does_not_delay_others(base_dir: Path) -> None:
    with serving(base_dir) as server:
        clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(5)]
        for client in clients:
            client.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\nG")
            assert client.recv(12) == b"HTTP/1.1 200"

        assert server.ping_soon().status == 200
        for client in clients:
            client.recv(2**16)
            client.sendall(b"ET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 200"
            client.close()


@pytest.mark.parametrize("body", [b"zz\r\n", b"0\r\nno trailer\r\n\r\n"])
def test_malformed_body_after_the_response_causes_no_second_response(
    base_dir: Path, body: bytes
) -> None:
    head = b"GET /ping HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with (
        serving(base_dir) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as client,
    ):
        client.sendall(head + body)
        response = receive_all(client)

    assert response.count(b"HTTP/1.1 ") == 1


def test_head_sent_in_pieces_is_one_request(base_dir: Path) -> None:
    with serving(base_dir) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            for part in (b"GET /pi", b"ng HTTP/1.1\r\nHo", b"st: x\r\n\r", b"\n"):
                client.sendall(part)
                time.sleep(0.2)
            assert client.recv(12) == b"HTTP/1.1 200"
            client.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n")
            client.shutdown(socket.SHUT_WR)
            # Half a head: the server closes or resets the connection.
            with suppress(ConnectionResetError):
                while client.recv(2**16):
                    pass
        assert server.get("/ping").status == 200


@pytest.mark.parametrize("length", [0, 5_000, 60_000], ids=["short", "long", "very long"])
def test_pipelined_requests_sent_in_pieces_are_all_answered(base_dir: Path, length: int) -> None:
    fields = "".join(f"X-{number}: {'a' * 1000}\r\n" for number in range(length // 1000))
    head = (
        "POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
        f"{fields}Content-Length: {len(PNG)}\r\n\r\n"
    )
    last = b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    data = (head.encode() + PNG) * 2 + last
    cuts = [0, 10, len(head) - 2, len(head) + 5, len(head) + len(PNG) + 20, len(data) - 1]
    with (
        serving(base_dir) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as client,
    ):
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for begin, end in pairwise([*cuts, len(data)]):
            client.sendall(data[begin:end])
            time.sleep(0.05)
        response = receive_all(client)

    assert response.count(b"HTTP/1.1 200") == 3


def test_too_long_head_is_answered_with_431(base_dir: Path) -> None:
    with serving(base_dir) as server:
        assert server.invoke(PNG, X_Long="a" * 70_000).status == 431
        assert server.invoke(PNG, X_Long="a" * 5_000).status == 200


@pytest.mark.slow
def test_connection_with_a_head_sent_byte_by_byte_is_closed(base_dir: Path) -> None:
    with serving(base_dir) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.settimeout(0.5)
            client.sendall(b"POST /invocations HTTP/1.1\r\nX: ")
            for _ in range(150):
                try:
                    client.sendall(b"a")
                    assert client.recv(1) == b""
                except TimeoutError:
                    continue
                except ConnectionError:
                    pass
                break
            else:
                pytest.fail("the connection is still open")
        assert server.invoke(PNG).status == 200


@pytest.mark.slow
@pytest.mark.parametrize("is_kept", [True, False], ids=["kept connections", "new connections"])
def test_8_sigterm_under_load_loses_no_request_and_exits_with_0(
    base_dir: Path, *, is_kept: bool
) -> None:
    heavy = encode(random_pixels(1500, 2000), "JPEG")

    # A long limit, so that a busy machine causes no rejections.
    with serving(base_dir, SAGEMAKER_CLASSIFIER_WAIT_SECONDS="20") as server:
        outcomes = stop_under_load(server, heavy, clients=32, is_kept=is_kept)

    assert server.process.returncode == 0
    # A worker without a drain would lose a request of every client.
    assert set(outcomes) == {200}
    assert len(outcomes) >= 32


@pytest.mark.skipif(sys.platform != "linux", reason="the filter of packets is Linux's")
def test_8_no_client_connects_between_sigterm_and_the_close_of_the_listener() -> None:
    received: list[object] = []

    def handle(*arguments: object) -> None:
        received.append(arguments)

    previous = signal.signal(signal.SIGTERM, handle)
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            block_on_sigterm([listener])
            address = listener.getsockname()
            socket.create_connection(address, timeout=10).close()
            signal.raise_signal(signal.SIGTERM)

            assert len(received) == 1
            # A second SIGTERM does not touch the listeners, which are closed then.
            assert signal.getsignal(signal.SIGTERM) is handle
            with pytest.raises(TimeoutError):
                socket.create_connection(address, timeout=0.2)
    finally:
        signal.signal(signal.SIGTERM, previous)


def test_8_sigterm_while_loading_ends_the_server_at_once(base_dir: Path, tmp_path: Path) -> None:
    with blocked_loading(base_dir, tmp_path), starting(tmp_path) as server:
        server.wait_for_ping(503)
        server.process.send_signal(signal.SIGTERM)

        assert server.process.wait(10) == 0


def test_14_missing_model_ends_the_process_with_a_message(tmp_path: Path) -> None:
    with starting(tmp_path) as server:
        status = server.process.wait(30)

        log = server.log.read_text()
        assert status != 0
        assert "no manifest.json in" in log
        assert "Traceback" not in log


def test_14_model_with_predictions_unlike_training_ends_the_process(
    artifact: Path, other_artifact: Path, tmp_path: Path
) -> None:
    shutil.copytree(artifact, tmp_path / "model")
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text())
    other = json.loads((other_artifact / "manifest.json").read_text())
    shutil.copy(other_artifact / "model.onnx", tmp_path / "model" / "model.onnx")
    manifest["files"]["model.onnx"] = other["files"]["model.onnx"]
    (tmp_path / "model" / "manifest.json").write_text(json.dumps(manifest))

    # Untrained networks have similar predictions: the rounding of bfloat16 could be the difference.
    with starting(tmp_path, SAGEMAKER_CLASSIFIER_PRECISION="float32") as server:
        status = server.process.wait(30)

        assert status != 0
        assert "differs from training's" in server.log.read_text()


def test_14_worker_killed_while_loading_ends_the_process(base_dir: Path, tmp_path: Path) -> None:
    with blocked_loading(base_dir, tmp_path), starting(tmp_path) as server:
        server.wait_for_ping(503)
        os.kill(server.worker(), signal.SIGKILL)

        assert server.process.wait(10) != 0


def test_14_worker_killed_while_serving_is_replaced(base_dir: Path) -> None:
    with serving(base_dir) as server:
        os.kill(server.worker(), signal.SIGKILL)
        time.sleep(0.2)
        server.wait_for_ping(200)

        assert server.invoke(PNG).status == 200


@pytest.mark.slow
def test_14_hung_worker_is_replaced_but_not_after_the_machine_resumes(
    base_dir: Path,
) -> None:
    with serving(base_dir, GUNICORN_CMD_ARGS="--timeout 10") as server:
        worker = server.worker()
        both = (server.process.pid, worker)
        for pid in both:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(12)
        # The master first: it polls before the worker can send a heartbeat.
        for pid in both:
            os.kill(pid, signal.SIGCONT)
            time.sleep(2)
        assert server.workers() == [worker]
        assert server.invoke(PNG).status == 200

        os.kill(worker, signal.SIGSTOP)
        while server.workers() == [worker]:
            time.sleep(0.1)
        server.wait_for_ping(200)
        assert server.invoke(PNG).status == 200


@pytest.mark.slow
def test_every_restarted_worker_becomes_ready(base_dir: Path) -> None:
    # Starts can hang if two threads create their first tensors at the same time.
    with serving(base_dir) as server:
        for _ in range(30):
            worker = server.worker()
            os.kill(worker, signal.SIGKILL)
            while (replacement := server.workers()) in ([], [worker]):
                time.sleep(0.02)
            assert len(replacement) == 1
            server.wait_for_ping(200)


def test_invalid_setting_is_reported_before_gunicorn_starts(base_dir: Path) -> None:
    with starting(base_dir, SAGEMAKER_MAX_PAYLOAD_IN_MB="much") as server:
        assert server.process.wait(10) == 1
        assert "SAGEMAKER_MAX_PAYLOAD_IN_MB must be a whole number" in server.log.read_text()


def test_low_limit_of_open_files_is_raised(base_dir: Path) -> None:
    with starting(base_dir, under=("prlimit", "--nofile=90:4000")) as server:
        server.wait_for_ping(200)

        assert resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE) == (4000, 4000)


def test_too_low_hard_limit_of_open_files_is_reported_before_the_start(base_dir: Path) -> None:
    with starting(base_dir, under=("prlimit", "--nofile=90:90")) as server:
        assert server.process.wait(10) == 1
        assert "at most 90 files may be open" in server.log.read_text()


def test_openvino_writes_no_telemetry_files(base_dir: Path, tmp_path: Path) -> None:
    with serving(base_dir, HOME=str(tmp_path), CI="", TF_BUILD="", JENKINS_URL="") as server:
        assert server.invoke(PNG).status == 200

    assert list(tmp_path.iterdir()) == []
