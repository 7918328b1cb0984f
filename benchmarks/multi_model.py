"""Measure the memory of a multi-model endpoint over many loads and unloads.

    python -m benchmarks.multi_model --data FOLDER
    python -m benchmarks.multi_model --data FOLDER --image image-classifier-serve --cycles 1000

FOLDER holds ants-bees.tar, whose photographs are predicted. Models of five networks with random
weights and ten classes alternate: each is loaded, predicts and is unloaded. Resident memory is
measured when no model is loaded, and when all five are.

With --image, the server runs in a container that has memory for some of the models. Clients send
requests for random models through the platform, which loads them and evicts the least recently used
ones. Each response is compared to the model's response without other requests. The memory is
measured when no model is loaded.
"""

import argparse
import http.client
import json
import random
import statistics
import tarfile
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks.conditions import print_results
from benchmarks.rivals.commands import ours
from benchmarks.serving import PYTHON, running
from benchmarks.serving_artifact import make_artifact, write_images
from image_classifier.platform import endpoint
from image_classifier.platform.multi_model_endpoint import MultiModelEndpoint, launch_of
from image_classifier.platform.sandbox.container_target import SERVING_PORT, ContainerTarget
from image_classifier.platform.sandbox.http_call import Response
from image_classifier.platform.sandbox.launch import Launch, Running
from tests.processes import resident_bytes

NETWORKS = ("resnet18", "mobilenet_v3_small", "shufflenet_v2_x1_0", "squeezenet1_1", "small")
PREDICTIONS = 3

# Between two measurements of the memory under traffic, and of the images that are sent.
ROUND_CYCLES, IMAGES = 100, 8

VARIABLES = {
    # The measured choice between precisions could differ from load to load.
    "SAGEMAKER_CLASSIFIER_PRECISION": "float32",
    # The photographs are small, and the rest of the memory is for models.
    "SAGEMAKER_CLASSIFIER_IMAGE_MB": "50",
}

# Of two equal predictions: the batches of parallel requests round differently.
TOLERANCE = 1e-3


def main() -> None:
    """Load and unload models; print a table and a JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with ants-bees.tar")
    parser.add_argument("--cycles", type=int, default=300)
    parser.add_argument("--image", help="send traffic to this container image")
    parser.add_argument("--memory", type=int, default=700, help="of the container, in MB")
    parser.add_argument("--clients", type=int, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        base_dir = Path(scratch)
        images = write_images(base_dir / "images", arguments.data, None)
        for name in NETWORKS:
            make_artifact(base_dir / "models" / name / "model", name, images)
        bodies = [path.read_bytes() for path in images]
        if arguments.image:
            results = _send_traffic(base_dir, bodies[:IMAGES], arguments)
        else:
            results = _cycle(base_dir, bodies, arguments.cycles)
    print_results(["openvino", "gunicorn", "flask"], **results)


def _cycle(base_dir: Path, bodies: list[bytes], cycles: int) -> dict[str, object]:
    found: dict[str, float] = {}
    with running(partial(ours, "", PYTHON, SAGEMAKER_MULTI_MODEL="true"), base_dir) as server:
        port = server.port

        def measure(moment: str) -> None:
            found[moment] = resident_bytes(server.process.pid) / 1e6
            print(f"{moment}: {found[moment]:.0f} MB", flush=True)

        measure("at the start")
        start = time.monotonic()
        for cycle in range(1, cycles + 1):
            name = NETWORKS[cycle % len(NETWORKS)]
            _load(port, base_dir, name)
            for number in range(PREDICTIONS):
                body = bodies[(cycle + number) % len(bodies)]
                _send(port, "POST", f"/models/{name}/invoke", body)
            _send(port, "DELETE", f"/models/{name}")
            if cycle in {5, 10, 20} or cycle % 50 == 0:
                measure(f"after {cycle} cycles")
        seconds = (time.monotonic() - start) / cycles
        for name in NETWORKS:
            _load(port, base_dir, name)
        measure("with all five")
    return {"megabytes": found, "seconds_per_cycle": seconds}


def _send_traffic(
    base_dir: Path, bodies: Sequence[bytes], arguments: argparse.Namespace
) -> dict[str, object]:
    prefix, served = base_dir / "prefix", base_dir / "served"
    prefix.mkdir()
    served.mkdir()
    for name in NETWORKS:
        with tarfile.open(prefix / f"{name}.tar.gz", "w:gz", compresslevel=1) as archive:
            archive.add(base_dir / "models" / name / "model", ".")
    launch = launch_of(
        Launch(
            base_dir=served,
            folders={},
            variables=VARIABLES,
            port=SERVING_PORT,
            memory=arguments.memory * 10**6,
        )
    )
    with endpoint.running(ContainerTarget(arguments.image, "serve"), launch, 60) as server:
        models = MultiModelEndpoint(server, served, prefix, in_container=True)
        return _measure_traffic(models, server, bodies, arguments)


def _measure_traffic(
    models: MultiModelEndpoint,
    server: Running,
    bodies: Sequence[bytes],
    arguments: argparse.Namespace,
) -> dict[str, object]:
    rejected = 0

    def invoke(name: str, number: int) -> Response:
        nonlocal rejected
        headers = {"Content-Type": "image/jpeg", "Accept": "text/csv"}
        while True:
            response = models.invoke(f"{name}.tar.gz", bodies[number], headers)
            if response.status != http.HTTPStatus.SERVICE_UNAVAILABLE:
                return response
            # As clients of an endpoint do.
            rejected += 1
            time.sleep(0.1)

    expected = {
        (name, number): _probabilities(invoke(name, number))
        for name in NETWORKS
        for number in range(len(bodies))
    }

    def is_right(request: tuple[str, int]) -> bool:
        found = _probabilities(invoke(*request))
        return max(abs(a - b) for a, b in zip(found, expected[request], strict=True)) < TOLERANCE

    chooser = random.Random(0)  # noqa: S311 - of requests
    memory: dict[int, float] = {}
    sent = wrong = 0
    models.unload_all()
    models.unloads, start = 0, time.monotonic()
    with ThreadPoolExecutor(arguments.clients) as pool:
        for cycles in range(ROUND_CYCLES, arguments.cycles + 1, ROUND_CYCLES):
            while models.unloads < cycles:
                requests = chooser.choices([*expected], k=4 * arguments.clients)
                answers = [*pool.map(is_right, requests)]
                sent, wrong = sent + len(answers), wrong + answers.count(False)
            models.unload_all()
            memory[cycles] = (server.memory() or 0) / 1e6
            counts = f"{models.unloads} unloads, {sent} requests, {wrong} wrong"
            print(f"{counts}: {memory[cycles]:.0f} MB", flush=True)
    first, last = [*memory.values()][1:4], [*memory.values()][-3:]
    return {
        "megabytes": memory,
        "growth": statistics.median(last) / statistics.median(first) - 1,
        "requests": sent,
        "wrong": wrong,
        "rejected": rejected,
        "seconds": time.monotonic() - start,
    }


def _probabilities(response: Response) -> list[float]:
    if not response.is_success:
        raise SystemExit(f"a request failed: {response}")
    return [float(text) for text in response.body.split(b",")]


def _load(port: int, base_dir: Path, name: str) -> None:
    document = {"model_name": name, "url": str(base_dir / "models" / name / "model")}
    _send(port, "POST", "/models", json.dumps(document).encode())


def _send(port: int, method: str, path: str, body: bytes | None = None) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        content = response.read()
        if response.status != http.HTTPStatus.OK:
            raise SystemExit(f"{method} {path} returned {response.status}: {content!r}")
    finally:
        connection.close()


if __name__ == "__main__":
    main()
