"""Prometheus metrics of the real program."""

import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from container.serving.http.metrics import BUCKETS, Metrics, shared_table
from tests.bodies import PNG, instances
from tests.processes import children
from tests.servers import Server, serving
from tests.test_serving_overload import ONE_SLOT, send_invocation, send_repeatedly

SAMPLE = re.compile(r'(?P<name>\w+(?:\{\w+="[^"]+"(?:,\w+="[^"]+")*\})?) (?P<value>[\d.]+)')

ON = {"SAGEMAKER_CLASSIFIER_METRICS": "true"}


def parsed(text: str) -> dict[str, float]:
    """Parse Prometheus' text format strictly."""
    samples = {}
    families = set()
    for line in text.splitlines():
        if line.startswith("#"):
            _, kind, family, words = line.split(" ", 3)
            assert kind in {"HELP", "TYPE"}
            assert words
            families.add(family)
        else:
            match = SAMPLE.fullmatch(line)
            assert match, line
            assert any(match["name"].startswith(family) for family in families)
            assert match["name"] not in samples
            samples[match["name"]] = float(match["value"])
    assert text.endswith("\n")
    return samples


def scraped(server: Server) -> dict[str, float]:
    response = server.get("/metrics")
    assert response.status == 200
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parsed(response.body.decode())


def test_requests_images_and_seconds_are_counted(base_dir: Path) -> None:
    with serving(base_dir, **ON) as server:
        server.invoke(PNG)
        server.invoke(instances(PNG, b"not an image"), "application/json")
        server.invoke(b"not an image")
        server.get("/nowhere")

        found = scraped(server)
        again = scraped(server)

    assert found['classifier_requests_total{status="200"}'] == 2
    assert found['classifier_requests_total{status="422"}'] == 1
    assert found['classifier_requests_total{status="404"}'] == 1
    assert found["classifier_refused_total"] == 0
    assert found['classifier_images_total{outcome="predicted"}'] == 2
    assert found['classifier_images_total{outcome="unreadable"}'] == 2
    assert found["classifier_queue_length"] == 0
    for step, count in (("read", 3), ("wait", 3), ("decode", 4), ("infer", 2)):
        assert found[f'classifier_seconds_count{{step="{step}"}}'] == count
        assert found[f'classifier_seconds_bucket{{step="{step}",le="+Inf"}}'] == count
        assert found[f'classifier_seconds_sum{{step="{step}"}}'] > 0
    # Neither /ping nor /metrics counts.
    assert again == found


def test_metrics_are_off_by_default(server: Server) -> None:
    assert server.get("/metrics").status == 404


def test_requests_rejected_by_admission_control_are_counted(base_dir: Path) -> None:
    with serving(base_dir, **ON, **ONE_SLOT, SAGEMAKER_CLASSIFIER_QUEUE="2") as server:
        statuses = send_repeatedly(server, 2, clients=12)

        found = scraped(server)

    assert statuses.count(503) > 0
    assert found["classifier_refused_total"] == statuses.count(503)
    assert found['classifier_requests_total{status="503"}'] == statuses.count(503)
    assert found['classifier_requests_total{status="200"}'] == statuses.count(200)


def test_client_that_disconnects_in_the_queue_is_not_counted_as_rejected(base_dir: Path) -> None:
    with serving(base_dir, **ON, **ONE_SLOT) as server:
        stalled = send_invocation(server, PNG, sent=10)
        time.sleep(0.2)
        send_invocation(server, PNG).close()
        rejected = server.invoke(PNG)

        found = scraped(server)
        stalled.close()

    assert rejected.status == 503
    assert found["classifier_refused_total"] == 1


def test_queue_length_is_reported(base_dir: Path) -> None:
    with serving(
        base_dir, **ON, **{**ONE_SLOT, "SAGEMAKER_CLASSIFIER_WAIT_SECONDS": "30"}
    ) as server:
        asking = threading.Thread(target=send_repeatedly, args=(server, 2, 12))
        asking.start()
        longest = 0.0
        while asking.is_alive():
            longest = max(longest, scraped(server)["classifier_queue_length"])
            time.sleep(0.05)

        assert 1 <= longest <= 11
        assert scraped(server)["classifier_queue_length"] == 0


@pytest.mark.slow
def test_any_worker_returns_the_sum_and_no_counter_decreases(base_dir: Path) -> None:
    count = 'classifier_requests_total{status="200"}'
    with serving(base_dir, **ON, SAGEMAKER_MODEL_SERVER_WORKERS="2") as server:
        # A worker that is killed while it loads its model stops the server.
        wait_for_models(server, 2)
        for _ in range(40):
            server.invoke(PNG)

        assert {scraped(server)[count] for _ in range(20)} == {40}

        os.kill(children(server.process.pid)[0], signal.SIGKILL)
        wait_for_models(server, 3)
        assert {scraped(server)[count] for _ in range(20)} == {40}
        for _ in range(20):
            server.invoke(PNG)
        assert {scraped(server)[count] for _ in range(20)} == {60}


def wait_for_models(server: Server, number: int) -> None:
    deadline = time.monotonic() + 60
    while server.log.read_text().count("the model is served") < number:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.0011, 10.0, 11.0])
def test_bucket_counts_durations_up_to_its_upper_bound(seconds: float) -> None:
    metrics = Metrics()

    metrics.observe("decode", [seconds])

    found = parsed(metrics.render())
    for end in BUCKETS:
        bucket = f'classifier_seconds_bucket{{step="decode",le="{end}"}}'
        assert found[bucket] == (seconds <= end)
    assert found['classifier_seconds_bucket{step="decode",le="+Inf"}'] == 1
    assert found['classifier_seconds_sum{step="decode"}'] == seconds


def test_counts_of_threads_are_complete_and_rows_are_summed() -> None:
    table = shared_table(2)
    first, second = (Metrics(table, row) for row in range(2))

    def count() -> None:
        for _ in range(5000):
            first.count_request(200)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    second.count_request(200)
    second.note_queue(3)

    found = parsed(first.render())
    assert found['classifier_requests_total{status="200"}'] == 20_001
    assert found["classifier_queue_length"] == 3
    assert parsed(Metrics(table, 1).render())["classifier_queue_length"] == 0
