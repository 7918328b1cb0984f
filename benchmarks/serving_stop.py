"""Count the requests that are lost when the server gets SIGTERM under load.

    python -m benchmarks.serving_stop --data FOLDER --times 20

FOLDER holds ants-bees.tar. Each time a server is started, and stopped under 32 clients in closed
loops on kept connections, then under 24 that open a connection for each request.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.conditions import print_results
from benchmarks.serving_artifact import make_artifact, write_images
from tests.servers import serving, stop_under_load

LOADS = {"kept connections": (32, True), "new connections": (24, False)}


def main() -> None:
    """Measure; print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with ants-bees.tar")
    parser.add_argument("--times", type=int, default=20)
    arguments = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        base_dir = Path(scratch)
        images = write_images(base_dir / "images", arguments.data, None)
        make_artifact(base_dir / "model", "resnet18", images)
        body = images[0].read_bytes()
        for name, (clients, is_kept) in LOADS.items():
            requests, lost = 0, []
            for _ in range(arguments.times):
                with serving(base_dir, SAGEMAKER_CLASSIFIER_WAIT_SECONDS="20") as server:
                    outcomes = stop_under_load(server, body, clients=clients, is_kept=is_kept)
                requests += len(outcomes)
                lost.append(len(outcomes) - outcomes.count(200))
            results[name] = {"requests": requests, "lost": lost}
            print(f"{clients} clients, {name}: {requests} requests, lost each time: {lost}")
    print_results(["gunicorn", "openvino"], results=results)


if __name__ == "__main__":
    main()
