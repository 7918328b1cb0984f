"""Overload: more clients than the real program can serve."""

import http.client
import os
import re
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.artifacts import encode, random_pixels
from tests.bodies import PNG
from tests.servers import Server, receive_all, serving

# A prediction takes tens of milliseconds, longer than opening a connection.
HEAVY = encode(random_pixels(1500, 2000))

ONE_SLOT = {
    "SAGEMAKER_CLASSIFIER_STREAMS": "1",
    "SAGEMAKER_CLASSIFIER_THREADS": "1",
    "SAGEMAKER_CLASSIFIER_WAIT_SECONDS": "1",
}

FEW_FILES = ("prlimit", "--nofile=512:512")


def send_repeatedly(server: Server, seconds: float, clients: int, body: bytes = HEAVY) -> list[int]:
    """Send requests in closed loops on persistent connections; return all statuses."""
    statuses: list[int] = []
    deadline = time.monotonic() + seconds

    def send() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        while time.monotonic() < deadline:
            connection.request("POST", "/invocations", body, {"Content-Type": "image/png"})
            response = connection.getresponse()
            assert response.read()
            statuses.append(response.status)
        connection.close()

    threads = [threading.Thread(target=send) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses


def send_invocation(
    server: Server, body: bytes = HEAVY, *, sent: int | None = None
) -> socket.socket:
    """Send a request with the first `sent` bytes of its body, by default all."""
    client = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    head = f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    client.sendall(head.encode() + body[:sent])
    return client


@pytest.mark.parametrize("body", [HEAVY, PNG], ids=["long", "short"])
def test_requests_are_rejected_only_while_the_queue_is_full(base_dir: Path, body: bytes) -> None:
    with serving(base_dir, **ONE_SLOT, SAGEMAKER_CLASSIFIER_QUEUE="2") as server:
        statuses = send_repeatedly(server, 2, clients=12, body=body)

        assert set(statuses) == {200, 503}
        assert server.invoke(PNG).status == 200
        log = server.log.read_text()
        assert " refused=" in log
        assert "Traceback" not in log


def test_rejected_client_that_stalls_gets_503_before_the_connection_closes(
    base_dir: Path,
) -> None:
    with serving(base_dir, **ONE_SLOT) as server:
        head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
        clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2)]
        # The first one holds the only slot until its body arrives.
        for client in clients:
            client.sendall(head + b"the beginning")
            time.sleep(0.2)

        clients[1].settimeout(10)
        response = receive_all(clients[1])
        for client in clients:
            client.close()

        assert response.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nConnection: close\r\n" in response
        assert server.invoke(PNG).status == 200


@pytest.mark.parametrize(
    "head",
    [
        b"POST /invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n",
        b"POST /invocations HTTP/1.0\r\nContent-Length: 9\r\n\r\n",
    ],
    ids=["chunked", "expect", "1.0"],
)
def test_many_stalled_requests_are_rejected_at_once(base_dir: Path, head: bytes) -> None:
    variables = {**ONE_SLOT, "SAGEMAKER_CLASSIFIER_WAIT_SECONDS": "30"}
    with serving(base_dir, **variables, SAGEMAKER_CLASSIFIER_QUEUE="1") as server:
        # The first one holds the only slot, the second one fills the queue.
        clients = []
        for number in range(400):
            clients.append(socket.create_connection(("127.0.0.1", server.port), timeout=10))
            clients[-1].sendall(head)
            if number < 2:
                time.sleep(0.2)

        try:
            responses = [receive_all(client) for client in clients[2:]]
        finally:
            for client in clients:
                client.close()

        assert all(re.search(rb"HTTP/1.[01] 503 ", response) for response in responses)
        # The server notices the closed connections after a moment.
        deadline = time.monotonic() + 30
        while server.invoke(PNG).status == 503 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert server.invoke(PNG).status == 200


def test_no_request_is_rejected_while_the_queue_has_room(base_dir: Path) -> None:
    with serving(base_dir, **{**ONE_SLOT, "SAGEMAKER_CLASSIFIER_WAIT_SECONDS": "30"}) as server:
        assert set(send_repeatedly(server, 1, clients=24)) == {200}


def test_request_that_waits_too_long_is_rejected(base_dir: Path) -> None:
    with serving(base_dir, **ONE_SLOT) as server:
        # It holds the only slot until its body arrives.
        stalled = send_invocation(server, PNG, sent=10)
        time.sleep(0.2)

        start = time.monotonic()
        rejected = server.invoke(PNG)
        waited = time.monotonic() - start
        stalled.close()

        assert rejected.status == 503
        assert rejected.headers["Retry-After"] == "1"
        assert waited > 0.7
        assert server.invoke(PNG).status == 200


def test_next_request_on_a_connection_waits_behind_queued_requests(base_dir: Path) -> None:
    variables = {**ONE_SLOT, "SAGEMAKER_CLASSIFIER_WAIT_SECONDS": "30"}
    with serving(base_dir, **variables, SAGEMAKER_CLASSIFIER_QUEUE="1") as server:
        head = b"POST /invocations HTTP/1.1\r\nHost: x\r\n"
        first = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        first.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(PNG))
        time.sleep(0.2)
        second = send_invocation(server, PNG)
        time.sleep(0.2)
        # The next request follows the end of the body. The only room for it is in the queue, after
        # the second one has left it.
        following = head + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(PNG)
        first.sendall(PNG + b"\r\n0\r\n\r\n" + following + PNG)

        assert second.recv(12) == b"HTTP/1.1 200"
        assert receive_all(first).count(b"HTTP/1.1 200") == 2
        for client in (first, second):
            client.close()


def test_requests_of_disconnected_clients_are_not_predicted(base_dir: Path) -> None:
    with serving(base_dir, **{**ONE_SLOT, "SAGEMAKER_CLASSIFIER_WAIT_SECONDS": "30"}) as server:
        clients = [send_invocation(server) for _ in range(40)]
        time.sleep(0.1)
        for client in clients:
            client.close()

        assert server.invoke(PNG).status == 200
        log = server.log.read_text()

    assert log.count("status=200") < len(clients) / 2


def test_queued_requests_are_answered_after_sigterm(base_dir: Path) -> None:
    with serving(base_dir, **{**ONE_SLOT, "SAGEMAKER_CLASSIFIER_WAIT_SECONDS": "30"}) as server:
        clients = [send_invocation(server) for _ in range(20)]
        time.sleep(0.1)
        server.process.send_signal(signal.SIGTERM)

        responses = [client.recv(4096) for client in clients]
        assert server.process.wait(20) == 0
        for client in clients:
            client.close()

    assert [response[:12] for response in responses] == [b"HTTP/1.1 200"] * len(clients)


def test_sigterm_accepts_the_backlog_despite_many_idle_connections(base_dir: Path) -> None:
    with serving(base_dir, under=FEW_FILES) as server:
        idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(150)]
        assert server.ping_soon().status == 200
        worker = server.worker()
        os.kill(worker, signal.SIGSTOP)
        backlog = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(60)]
        for client in backlog:
            client.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
            client.settimeout(30)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        os.kill(worker, signal.SIGCONT)

        assert {client.recv(12) for client in backlog} == {b"HTTP/1.1 200"}
        assert server.process.wait(30) == 0
        for client in idle + backlog:
            client.close()


def test_killed_worker_loses_only_its_own_requests(base_dir: Path) -> None:
    with serving(base_dir, **{**ONE_SLOT, "SAGEMAKER_CLASSIFIER_WAIT_SECONDS": "30"}) as server:
        earlier = [send_invocation(server) for _ in range(20)]
        time.sleep(0.2)
        os.kill(server.worker(), signal.SIGKILL)
        later = [send_invocation(server) for _ in range(20)]

        # 503 while the next worker loads the model.
        responses = {client.recv(12) for client in later}
        assert responses <= {b"HTTP/1.1 200", b"HTTP/1.1 503"}
        for client in earlier + later:
            client.close()
        server.wait_for_ping(200)
        assert set(send_repeatedly(server, 1, clients=4)) == {200}


def test_ping_answers_with_more_idle_connections_than_threads(base_dir: Path) -> None:
    with serving(base_dir, **ONE_SLOT) as server:
        idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(200)]
        time.sleep(0.2)

        assert server.ping_soon().status == 200
        for client in idle:
            client.close()


def test_ping_answers_while_idle_connections_occupy_threads(base_dir: Path) -> None:
    with serving(base_dir, under=FEW_FILES) as server:
        idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(200)]
        time.sleep(0.2)

        for _ in range(3):
            assert server.get("/ping").status == 200
        for client in idle:
            client.close()
        assert server.invoke(PNG).status == 200
        assert "Traceback" not in server.log.read_text()


def test_more_idle_connections_than_files_do_not_end_the_worker(base_dir: Path) -> None:
    with serving(base_dir, under=FEW_FILES) as server:
        worker = server.worker()
        idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(440)]
        time.sleep(1)
        for client in idle:
            client.close()

        assert server.get("/ping").status == 200
        assert server.workers() == [worker]


def test_ping_answers_when_waiting_requests_exceed_the_connection_limit(base_dir: Path) -> None:
    variables = {**ONE_SLOT, "SAGEMAKER_CLASSIFIER_WAIT_SECONDS": "30"}
    with serving(base_dir, under=FEW_FILES, **variables) as server:
        # The first one holds the only slot until its body arrives.
        waiting = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(250)]
        for client in waiting:
            client.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")

        assert server.ping_soon().status == 200
        for client in waiting:
            client.close()


def test_connections_closed_by_the_server_make_room_for_others(base_dir: Path) -> None:
    with serving(base_dir, under=FEW_FILES) as server:
        idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
        answered = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(50)]
        for client in answered:
            client.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 200"
        # Time for them to read the response.
        time.sleep(0.5)
        later = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(40)]

        assert server.ping_soon().status == 200
        for client in idle:
            with pytest.raises(BlockingIOError):
                client.recv(1, socket.MSG_DONTWAIT)
        for client in idle + answered + later:
            client.close()


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process."""
    ticks = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
def test_incomplete_heads_use_no_cpu_while_clients_are_silent(base_dir: Path) -> None:
    with serving(base_dir) as server:
        clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(5)]
        for client in clients:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(b"GET /ping HTTP/1.1\r\nX: ")
        for _ in range(7_000):
            for client in clients:
                client.send(b"a")
            time.sleep(0.001)

        before = cpu_seconds(server.worker())
        time.sleep(3)
        assert cpu_seconds(server.worker()) < before + 1
        assert server.ping_soon().status == 200
        for client in clients:
            client.sendall(b"\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 200"
            client.close()


def test_clients_that_keep_closed_connections_open_do_not_delay_others(base_dir: Path) -> None:
    with serving(base_dir, **ONE_SLOT) as server:
        closed = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
        for client in closed:
            client.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

        assert server.ping_soon().status == 200
        for client in closed:
            client.close()


def send_and_never_read(port: int) -> None:
    """Request pages until all buffers are full; return after the server closed the connection."""
    with socket.create_connection(("127.0.0.1", port)) as client, suppress(ConnectionError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        while True:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 100)


@pytest.mark.slow
def test_connections_of_clients_that_never_read_are_closed(base_dir: Path) -> None:
    with serving(base_dir, **ONE_SLOT, SAGEMAKER_CLASSIFIER_PAGE="true") as server:
        clients = [
            threading.Thread(target=send_and_never_read, args=(server.port,), daemon=True)
            for _ in range(40)
        ]
        for client in clients:
            client.start()

        deadline = time.monotonic() + 180
        for client in clients:
            client.join(max(0, deadline - time.monotonic()))
        assert not any(client.is_alive() for client in clients)
        assert server.get("/ping").status == 200
        log = server.log.read_text()
        assert log.count("does not read its response") == len(clients)
        assert "Traceback" not in log


def test_pipelined_requests_are_all_answered(base_dir: Path) -> None:
    with serving(base_dir, **ONE_SLOT) as server:
        head = f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: {len(PNG)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
            client.sendall((head.encode() + PNG) * 3)
            responses = b""
            while responses.count(b"HTTP/1.1 200") < 3:
                chunk = client.recv(65536)
                assert chunk, responses
                responses += chunk
