"""Measure the memory of a multi-model endpoint over many loads and unloads.

    python -m benchmarks.multi_model --data FOLDER

FOLDER holds ants-bees.tar, whose photographs are predicted. Models of five networks with random
weights and ten classes alternate: each is loaded, predicts and is unloaded. Resident memory is
measured when no model is loaded, and when all five are.
"""

import argparse
import http.client
import json
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks.conditions import conditions
from benchmarks.rivals.commands import ours
from benchmarks.serving import PYTHON, running
from benchmarks.serving_artifact import make_artifact, write_images
from tests.processes import resident_bytes

NETWORKS = ("resnet18", "mobilenet_v3_small", "shufflenet_v2_x1_0", "squeezenet1_1", "small")
PREDICTIONS = 3


def main() -> None:
    """Load and unload models; print a table and a JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with ants-bees.tar")
    parser.add_argument("--cycles", type=int, default=300)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        base_dir = Path(scratch)
        images = write_images(base_dir / "images", arguments.data, None)
        for name in NETWORKS:
            make_artifact(base_dir / "models" / name / "model", name, images)
        bodies = [path.read_bytes() for path in images]
        results = _cycle(base_dir, bodies, arguments.cycles)
    print(json.dumps({**results, "conditions": conditions(["openvino", "gunicorn", "flask"])}))


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
