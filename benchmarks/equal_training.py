"""Whether this checkout trains and serves bit for bit as another checkout does.

    python -m benchmarks.equal_training --before ../earlier --data ../shared/data

Both checkouts train with the same seed: `small` from scratch on drawn hands, `squeezenet1_0` with a
frozen backbone and fine-tuned, on ants and bees. The SHA-256 of `weights.safetensors` must be
equal. Then this checkout serves an artifact of the other one in float32, and its responses must be
equal. Last, a job that the other checkout was stopped in is continued by this one: its weights must
be those of an uninterrupted job, unless its checkpoint is rejected with its format version.
"""

import argparse
import hashlib
import http.client
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from benchmarks.conditions import ROOT, print_results
from benchmarks.job import environment, unpacked, write_configuration
from image_classifier.platform import hands

SQUEEZENET = {"network": "squeezenet1_0", "batch_size": "16", "epochs": "1", "head_epochs": "5"}
CASES: Mapping[str, Mapping[str, str]] = {
    "small": {"network": "small", "image_size": "64", "epochs": "3", "batch_size": "32"},
    "frozen": {**SQUEEZENET, "fine_tuning": "none"},
    "fine-tuned": {
        **SQUEEZENET,
        "epochs": "3",
        "head_epochs": "1",
        "objective": "val_loss",
        # The defaults of earlier versions.
        "fine_tuning": "staged",
        "learning_rate": "0.0002",
        "label_smoothing": "0",
    },
}

START_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Checkout:
    """A copy of the repository, in its present or its earlier layout."""

    directory: Path

    @property
    def _has_packages(self) -> bool:
        """Whether `container` is a package: earlier its folders were the packages."""
        return (self.directory / "container" / "__init__.py").exists()

    def program(self, name: str) -> tuple[str, Path]:
        """Return the module of `training` or `serving`, and the folder to start it in."""
        # `python -m` finds packages in the working directory first.
        if self._has_packages:
            return f"container.{name}", self.directory
        return name, self.directory / "container"

    @contextmanager
    def running(
        self, program: str, base_dir: Path, **variables: str
    ) -> Iterator[subprocess.Popen[str]]:
        """Start `training` or `serving`; end it when the block is left."""
        verb = {"training": "train", "serving": "serve"}[program]
        module, directory = self.program(program)
        with subprocess.Popen(
            [sys.executable, "-m", module, verb],
            cwd=directory,
            env=environment(base_dir, PYTHONUNBUFFERED="1", **variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(30)
                process.kill()

    def train(self, base_dir: Path, stop_after: str | None = None) -> str:
        """Train; send SIGTERM after a log line that matches `stop_after`. Return the log."""
        log = ""
        with self.running("training", base_dir) as process:
            for line in _lines(process.stdout):
                log += line
                if stop_after is not None and re.match(stop_after, line):
                    process.send_signal(signal.SIGTERM)
            if process.wait():
                sys.exit(f"training in {self.directory} failed:\n{log}")
        return log

    def serve(self, base_dir: Path, images: list[bytes]) -> list[bytes]:
        """Serve the artifact in `base_dir` in float32; return the response to each image."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        variables = {
            "SAGEMAKER_BIND_TO_PORT": str(port),
            "SAGEMAKER_CLASSIFIER_PRECISION": "float32",
        }
        with self.running("serving", base_dir, **variables):
            deadline = time.monotonic() + START_SECONDS
            while _request(port, "GET", "/ping") is None:
                if time.monotonic() > deadline:
                    sys.exit(f"the server of {self.directory} is not healthy")
                time.sleep(0.2)
            responses = [_request(port, "POST", "/invocations", image) for image in images]
        if None in responses:
            sys.exit(f"the server of {self.directory} rejected an image")
        return [response for response in responses if response is not None]


def main() -> None:
    """Compare the checkouts; print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--before", type=Path, required=True, help="the other checkout")
    parser.add_argument("--data", type=Path, required=True, help="folder of the tar files")
    parser.add_argument("--images", type=int, default=40, help="training images of each class")
    arguments = parser.parse_args()
    before, after = Checkout(arguments.before.resolve()), Checkout(ROOT)
    results: dict[str, bool] = {}
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        data = make_data(directory / "data", arguments.data, arguments.images)
        for case in CASES:
            hashes = []
            for name, checkout in (("before", before), ("after", after)):
                base_dir = make_job(directory / case / name, data, case)
                start = time.monotonic()
                checkout.train(base_dir)
                hashes.append(weights_hash(base_dir))
                seconds = time.monotonic() - start
                print(f"{case:<11} {name:<7} {seconds:5.1f} s  {hashes[-1]}", flush=True)
            results[f"{case}: weights"] = hashes[0] == hashes[1]
            images = [path.read_bytes() for path in sorted(data[case].rglob("*.*g"))[:16]]
            responses = [
                checkout.serve(_with_artifact(directory / "serving", directory / case), images)
                for checkout in (before, after)
            ]
            results[f"{case}: responses"] = responses[0] == responses[1]
        results["stopped before, continued after"] = continues(directory, data, before, after)
    for name, is_equal in results.items():
        print(f"{name:<32} {'equal' if is_equal else 'DIFFERENT'}")
    print_results(["torch", "openvino"], equal=results)
    sys.exit(0 if all(results.values()) else 1)


def continues(directory: Path, data: Mapping[str, Path], before: Checkout, after: Checkout) -> bool:
    """Stop a job of `before` after an epoch and continue it in `after`; compare the weights."""
    base_dir = make_job(directory / "continued", data, "small")
    before.train(base_dir, stop_after="epoch=1 ")
    log = after.train(base_dir)
    lines = [line for line in log.splitlines() if re.search("^continued_from=|skipped", line)]
    print("\n".join(lines), flush=True)
    uninterrupted = weights_hash(directory / "small" / "before")
    is_rejected = any("version" in line for line in lines)
    return is_rejected or (bool(lines) and weights_hash(base_dir) == uninterrupted)


def make_hands(directory: Path) -> Path:
    """Draw hands in class folders of two channels; return `directory`."""
    for channel, count in (("training", 20), ("validation", 5)):
        for number, (_, image) in enumerate(hands.generate(count * 12, 0, channel)):
            folder = directory / channel / hands.CLASS_NAMES[number % 12]
            folder.mkdir(parents=True, exist_ok=True)
            image.save(folder / f"{number}.png")
    return directory


def make_data(directory: Path, tars: Path, per_class: int) -> dict[str, Path]:
    """Draw hands and unpack ants and bees; return the folder of each case's channels."""
    drawn = make_hands(directory / "hands")
    photographs = unpacked(tars, "ants-bees", directory) / "ants-bees"
    for channel, part, count in (("training", "train", per_class), ("validation", "val", 20)):
        for class_name in ("ants", "bees"):
            target = directory / "insects" / channel / class_name
            target.mkdir(parents=True)
            for path in sorted((photographs / part / class_name).iterdir())[:count]:
                shutil.copy2(path, target)
    weights = directory / "insects" / "weights"
    weights.mkdir()
    shutil.copy2(tars / "weights" / "squeezenet1_0-deepcompression.pth", weights)
    insects = directory / "insects"
    return {"small": drawn, "frozen": insects, "fine-tuned": insects}


def make_job(base_dir: Path, data: Mapping[str, Path], case: str) -> Path:
    """Write the files of a case's job; return its folder."""
    settings = {**CASES[case], "precision": "float32", "quantize": "none"}
    return write_job(base_dir, data[case], settings)


def write_job(base_dir: Path, data: Path, hyperparameters: Mapping[str, str]) -> Path:
    """Write a job whose channels are the folders of `data`; return its folder."""
    (base_dir / "input").mkdir(parents=True)
    (base_dir / "input" / "data").symlink_to(data)
    write_configuration(base_dir, hyperparameters)
    return base_dir


def weights_hash(base_dir: Path) -> str:
    """Return the SHA-256 of the weights that a job has written."""
    return hashlib.sha256((base_dir / "model" / "weights.safetensors").read_bytes()).hexdigest()


def _with_artifact(directory: Path, case: Path) -> Path:
    """Return a folder whose model is the artifact that the other checkout has written."""
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(case / "before" / "model", directory / "model")
    return directory


def _lines(stream: IO[str] | None) -> Iterator[str]:
    yield from stream or ()


def _request(port: int, method: str, path: str, body: bytes | None = None) -> bytes | None:
    """Return the body of a response, or None if there is no successful one."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Content-Type": "application/x-image", "Accept": "application/json"}
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        content = response.read()
    except OSError:
        return None
    finally:
        connection.close()
    return content if response.status == http.HTTPStatus.OK else None


if __name__ == "__main__":
    main()
