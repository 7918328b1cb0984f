"""More clients than the server can serve, against the real program."""

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

# Tens of milliseconds of work, longer than a connection takes.
HEAVY = encode(random_pixels(1500, 2000))

LITTLE = {
    "SAGEMAKER_CLASSIFIER_STREAMS": "1",
    "SAGEMAKER_CLASSIFIER_THREADS": "1",
    "SAGEMAKER_CLASSIFIER_WAIT_SECONDS": "1",
}

FEW_FILES = ("prlimit", "--nofile=512:512")


def ask_for(server: Server, seconds: float, clients: int, body: bytes = HEAVY) -> list[int]:
    """Ask without a pause on kept-alive connections; return all statuses."""
    statuses: list[int] = []
    deadline = time.monotonic() + seconds

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        while time.monotonic() < deadline:
            connection.request("POST", "/invocations", body, {"Content-Type": "image/png"})
            response = connection.getresponse()
            assert response.read()
            statuses.append(response.status)
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses


def send_invocation(
    server: Server, body: bytes = HEAVY, *, sent: int | None = None
) -> socket.socket:
    """Send a request, or of its body only the first bytes."""
    client = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    head = f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    client.sendall(head.encode() + body[:sent])
    return client


@pytest.mark.parametrize("body", [HEAVY, PNG], ids=["long", "short"])
def test_who_comes_when_the_queue_is_full_is_refused_and_the_others_are_served(
    base_dir: Path, body: bytes
) -> None:
    with serving(base_dir, **LITTLE, SAGEMAKER_CLASSIFIER_QUEUE="2") as server:
        statuses = ask_for(server, 2, clients=12, body=body)

        assert set(statuses) == {200, 503}
        assert server.invoke(PNG).status == 200
        log = server.log.read_text()
        assert " refused=" in log
        assert "Traceback" not in log


def test_who_is_refused_and_sends_no_more_is_told_before_the_connection_is_closed(
    base_dir: Path,
) -> None:
    with serving(base_dir, **LITTLE) as server:
        head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
        clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2)]
        # The first one has the only place for as long as its body does not come.
        for client in clients:
            client.sendall(head + b"the beginning")
            time.sleep(0.2)

        clients[1].settimeout(10)
        answer = receive_all(clients[1])
        for client in clients:
            client.close()

        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nConnection: close\r\n" in answer
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
def test_unusual_requests_are_refused_at_once_however_many_stall(
    base_dir: Path, head: bytes
) -> None:
    variables = {**LITTLE, "SAGEMAKER_CLASSIFIER_WAIT_SECONDS": "30"}
    with serving(base_dir, **variables, SAGEMAKER_CLASSIFIER_QUEUE="1") as server:
        # The first has the only place, the second that in the queue.
        clients = []
        for number in range(400):
            clients.append(socket.create_connection(("127.0.0.1", server.port), timeout=10))
            clients[-1].sendall(head)
            if number < 2:
                time.sleep(0.2)

        try:
            answers = [receive_all(client) for client in clients[2:]]
        finally:
            for client in clients:
                client.close()

        assert all(re.search(rb"HTTP/1.[01] 503 ", answer) for answer in answers)
        # Soon, but not in the very instant in which the first one hangs up.
        deadline = time.monotonic() + 30
        while server.invoke(PNG).status == 503 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert server.invoke(PNG).status == 200


def test_nobody_is_refused_who_finds_a_place_in_the_queue(base_dir: Path) -> None:
    with serving(base_dir, **{**LITTLE, "SAGEMAKER_CLASSIFIER_WAIT_SECONDS": "30"}) as server:
        assert set(ask_for(server, 1, clients=24)) == {200}


def test_who_waits_too_long_is_refused(base_dir: Path) -> None:
    with serving(base_dir, **LITTLE) as server:
        # It has the only place for as long as its body does not come.
        stalled = send_invocation(server, PNG, sent=10)
        time.sleep(0.2)

        start = time.monotonic()
        refused = server.invoke(PNG)
        waited = time.monotonic() - start
        stalled.close()

        assert refused.status == 503
        assert refused.headers["Retry-After"] == "1"
        assert waited > 0.7
        assert server.invoke(PNG).status == 200


def test_a_next_request_on_a_connection_waits_behind_those_that_waited(base_dir: Path) -> None:
    variables = {**LITTLE, "SAGEMAKER_CLASSIFIER_WAIT_SECONDS": "30"}
    with serving(base_dir, **variables, SAGEMAKER_CLASSIFIER_QUEUE="1") as server:
        head = b"POST /invocations HTTP/1.1\r\nHost: x\r\n"
        first = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        first.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(PNG))
        time.sleep(0.2)
        second = send_invocation(server, PNG)
        time.sleep(0.2)
        # With the body's end comes the next request, which finds no place free but that in the
        # queue which the second one leaves.
        following = head + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(PNG)
        first.sendall(PNG + b"\r\n0\r\n\r\n" + following + PNG)

        assert second.recv(12) == b"HTTP/1.1 200"
        assert receive_all(first).count(b"HTTP/1.1 200") == 2
        for client in (first, second):
            client.close()


def test_requests_whose_clients_have_gone_are_not_worked_on(base_dir: Path) -> None:
    with serving(base_dir, **{**LITTLE, "SAGEMAKER_CLASSIFIER_WAIT_SECONDS": "30"}) as server:
        clients = [send_invocation(server) for _ in range(40)]
        time.sleep(0.1)
        for client in clients:
            client.close()

        assert server.invoke(PNG).status == 200
        log = server.log.read_text()

    assert log.count("status=200") < len(clients) / 2


def test_sigterm_answers_who_waits_outside_as_well(base_dir: Path) -> None:
    with serving(base_dir, **{**LITTLE, "SAGEMAKER_CLASSIFIER_WAIT_SECONDS": "30"}) as server:
        clients = [send_invocation(server) for _ in range(20)]
        time.sleep(0.1)
        server.process.send_signal(signal.SIGTERM)

        answers = [client.recv(4096) for client in clients]
        assert server.process.wait(20) == 0
        for client in clients:
            client.close()

    assert [answer[:12] for answer in answers] == [b"HTTP/1.1 200"] * len(clients)


def test_sigterm_lets_in_who_knocked_at_a_server_full_of_silent_clients(base_dir: Path) -> None:
    with serving(base_dir, under=FEW_FILES) as server:
        silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(150)]
        assert server.ping_soon().status == 200
        worker = server.worker()
        os.kill(worker, signal.SIGSTOP)
        knocking = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(60)]
        for client in knocking:
            client.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
            client.settimeout(30)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        os.kill(worker, signal.SIGCONT)

        assert {client.recv(12) for client in knocking} == {b"HTTP/1.1 200"}
        assert server.process.wait(30) == 0
        for client in silent + knocking:
            client.close()


def test_a_killed_worker_takes_only_the_requests_with_it_that_it_had(base_dir: Path) -> None:
    with serving(base_dir, **{**LITTLE, "SAGEMAKER_CLASSIFIER_WAIT_SECONDS": "30"}) as server:
        earlier = [send_invocation(server) for _ in range(20)]
        time.sleep(0.2)
        os.kill(server.worker(), signal.SIGKILL)
        later = [send_invocation(server) for _ in range(20)]

        # 503 while the next worker loads the model.
        answers = {client.recv(12) for client in later}
        assert answers <= {b"HTTP/1.1 200", b"HTTP/1.1 503"}
        for client in earlier + later:
            client.close()
        server.wait_for_ping(200)
        assert set(ask_for(server, 1, clients=4)) == {200}


def test_ping_answers_while_more_clients_than_threads_only_connect(base_dir: Path) -> None:
    with serving(base_dir, **LITTLE) as server:
        silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(200)]
        time.sleep(0.2)

        assert server.ping_soon().status == 200
        for client in silent:
            client.close()


def test_ping_answers_when_silent_clients_have_all_connections(base_dir: Path) -> None:
    with serving(base_dir, under=FEW_FILES) as server:
        silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(300)]
        time.sleep(0.2)

        for _ in range(3):
            assert server.get("/ping").status == 200
        for client in silent:
            client.close()
        assert server.invoke(PNG).status == 200
        assert "Traceback" not in server.log.read_text()


def test_ping_answers_when_requests_that_wait_would_have_all_connections(base_dir: Path) -> None:
    variables = {**LITTLE, "SAGEMAKER_CLASSIFIER_WAIT_SECONDS": "30"}
    with serving(base_dir, under=FEW_FILES, **variables) as server:
        # The first has the only place for as long as its body does not come.
        waiting = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(250)]
        for client in waiting:
            client.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")

        assert server.ping_soon().status == 200
        for client in waiting:
            client.close()


def test_of_all_connections_those_make_room_that_have_our_last_answer(base_dir: Path) -> None:
    with serving(base_dir, under=FEW_FILES) as server:
        silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
        told = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(50)]
        for client in told:
            client.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 200"
        # They have had time to read it.
        time.sleep(0.5)
        later = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(40)]

        assert server.ping_soon().status == 200
        for client in silent:
            with pytest.raises(BlockingIOError):
                client.recv(1, socket.MSG_DONTWAIT)
        for client in silent + told + later:
            client.close()


def processor_seconds(pid: int) -> float:
    """Return what a process has used of the processors."""
    ticks = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
def test_heads_that_come_byte_by_byte_cost_nothing_while_nothing_comes(base_dir: Path) -> None:
    with serving(base_dir) as server:
        clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(5)]
        for client in clients:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(b"GET /ping HTTP/1.1\r\nX: ")
        for _ in range(7_000):
            for client in clients:
                client.send(b"a")
            time.sleep(0.001)

        before = processor_seconds(server.worker())
        time.sleep(3)
        assert processor_seconds(server.worker()) < before + 1
        assert server.ping_soon().status == 200
        for client in clients:
            client.sendall(b"\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 200"
            client.close()


def test_clients_that_do_not_close_what_we_closed_hold_nobody_up(base_dir: Path) -> None:
    with serving(base_dir, **LITTLE) as server:
        closed = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
        for client in closed:
            client.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

        assert server.ping_soon().status == 200
        for client in closed:
            client.close()


def ask_and_never_read(port: int) -> None:
    """Ask for pages until buffers are full in both directions, and wait to be hung up on."""
    with socket.create_connection(("127.0.0.1", port)) as client, suppress(ConnectionError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        while True:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 100)


@pytest.mark.slow
def test_clients_that_ask_and_never_read_are_hung_up_on(base_dir: Path) -> None:
    with serving(base_dir, **LITTLE, SAGEMAKER_CLASSIFIER_PAGE="true") as server:
        clients = [
            # More than the server has threads.
            threading.Thread(target=ask_and_never_read, args=(server.port,), daemon=True)
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


def test_requests_on_one_connection_sent_at_once_are_all_answered(base_dir: Path) -> None:
    with serving(base_dir, **LITTLE) as server:
        head = f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: {len(PNG)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
            client.sendall((head.encode() + PNG) * 3)
            answers = b""
            while answers.count(b"HTTP/1.1 200") < 3:
                piece = client.recv(65536)
                assert piece, answers
                answers += piece
