"""Compare the server with other servers, and with its limit without HTTP.

    python -m benchmarks.serving --data FOLDER --rounds 5
    python -m benchmarks.serving --data FOLDER --overload 60 [--before CHECKOUT]

    ... --rivals PYTHON

FOLDER holds ants-bees.tar, whose photographs (shorter side 320 pixels, or `--side`) are the
request bodies. Each round measures all contenders: it starts a server, sends requests from 1, 8 and
32 clients in closed loops, and stops it. The network is ResNet-18 (or `--network`) with random
weights, batch normalization statistics of the photographs and ten classes; speed does not depend on
the weights.

Ours is also compared with its engine without HTTP (the limit), and with a Flask view that only
calls the engine ("bare"): what Flask and gunicorn take of the limit.

The rival is Flask under gunicorn with torch. LitServe and TorchServe are measured, too, if
`--rivals` names a Python interpreter with requirements/dev.txt and litserve and, if Java is
installed, torchserve, torch-model-archiver, pyyaml and captum. Ratios are to the best rival of the
round.

`--overload SECONDS` measures only our server, under overload (benchmarks.overload). With `--before`
another checkout is measured in the same rounds, alternating.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from benchmarks import load
from benchmarks.conditions import ROOT, conditions
from benchmarks.equal_training import Checkout
from benchmarks.overload import Row, flood
from benchmarks.rivals.commands import FLASK, LITSERVE, TORCHSERVE, Command, bare, ours, rival
from benchmarks.serving_artifact import add_int8, make_artifact, write_images
from container.classifier.manifest import INT8
from container.serving.settings import PRECISIONS
from tests.processes import free_port, resident_bytes, wait_for_ping

CLIENTS = (1, 8, 32)
PACKAGES = ("flask", "gunicorn", "openvino", "torch", "torchvision", "pillow", "numpy")
PYTHON = Path(sys.executable)
LOG = "server.log"

# Of a server that does not start, in characters.
LOG_END = 2000

Contender: TypeAlias = Callable[[Path, int], Command]
"""Returns the command of a server, given the folder with the artifact and the port."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """A server under measurement."""

    process: subprocess.Popen[bytes]
    port: int
    start_seconds: float


@contextmanager
def running(contender: Contender, base_dir: Path) -> Iterator[Running]:
    """Start a contender and wait for its /ping; at the end stop it and its child processes."""
    port = free_port()
    command = contender(base_dir, port)
    start = time.monotonic()
    with (
        (base_dir / LOG).open("wb") as file,
        subprocess.Popen(
            command.arguments,
            env=os.environ | command.variables,
            cwd=command.directory,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            try:
                wait_for_ping(process, port)
            except SystemExit as error:
                log = (base_dir / LOG).read_text(encoding="utf-8", errors="replace")
                raise SystemExit(f"{log[-LOG_END:]}\n{error}") from None
            yield Running(process=process, port=port, start_seconds=time.monotonic() - start)
        finally:
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(10)
            # Some servers do not stop their workers.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def measure(contender: Contender, base_dir: Path, bodies: Sequence[bytes], seconds: float) -> Row:
    """Measure one contender with an increasing number of clients."""
    with running(contender, base_dir) as server:
        row = {"start": server.start_seconds, "idle_mb": resident_bytes(server.process.pid) / 1e6}
        requests = load.invocations(bodies)
        asyncio.run(load.closed_loop(server.port, requests, clients=4, seconds=1))
        for clients in CLIENTS:
            loop = load.closed_loop(server.port, requests, clients=clients, seconds=seconds)
            summary = asyncio.run(loop).summary()
            row |= {f"{clients} {key}": value for key, value in summary.items()}
        row["loaded_mb"] = resident_bytes(server.process.pid) / 1e6
    return row


def limits(precision: str, base_dir: Path, seconds: float) -> tuple[float, float]:
    """Return images a second without HTTP, and without HTTP and decoding."""
    program = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.serving_limit", base_dir / "model", precision),
            *(base_dir / "images", str(seconds)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    with_decoding, engine = program.stdout.splitlines()[-2:]
    return float(with_decoding), float(engine)


def compare(
    contenders: Mapping[str, Contender], base_dir: Path, *, rounds: int, seconds: float
) -> dict[str, list[Row]]:
    """Return the rows of each contender, one for each round; the rivals come first."""
    bodies = [path.read_bytes() for path in sorted((base_dir / "images").iterdir())]
    rows: dict[str, list[Row]] = {name: [] for name in contenders}
    rivals = [name for name in contenders if name not in PRECISIONS]

    def best(clients: int) -> float:
        return max(rows[rival][-1][f"{clients} per_second"] for rival in rivals)

    for _ in range(rounds):
        for name, measured in rows.items():
            row = measure(contenders[name], base_dir, bodies, seconds)
            if name in PRECISIONS:
                check_precision(name, base_dir)
                row["limit"], row["engine"] = limits(name, base_dir, seconds)
                row["8 share of limit"] = row["8 per_second"] / row["limit"]
                view = measure(partial(bare, name, PYTHON), base_dir, bodies, seconds)
                row["8 share of bare"] = row["8 per_second"] / view["8 per_second"]
                for clients in CLIENTS:
                    row[f"{clients} ratio"] = row[f"{clients} per_second"] / best(clients)
                # Upper limit of any server with this engine, even without decoding.
                row["engine ratio"] = row["engine"] / best(8)
                row["limit ratio"] = row["limit"] / best(8)
            measured.append(row)
            print(name, "  ".join(f"{key} {value:.4g}" for key, value in row.items()), flush=True)
    return rows


def check_precision(precision: str, base_dir: Path) -> None:
    """Exit if the server fell back to another precision, as it does if golden answers differ."""
    if f"precision={precision}\n" not in (base_dir / LOG).read_text(encoding="utf-8"):
        raise SystemExit(f"this machine does not serve the network in {precision}")


def overload(
    arguments: argparse.Namespace, base_dir: Path, bodies: Sequence[bytes]
) -> Mapping[str, object]:
    """Measure our server under overload, and that of the other checkout; return medians."""
    checkouts = {"": Checkout(ROOT)}
    if arguments.before:
        checkouts["before "] = Checkout(arguments.before.resolve())
    rounds: dict[str, list[Mapping[str, Row]]] = {}
    for _ in range(arguments.rounds):
        for precision in arguments.precisions:
            for name, checkout in checkouts.items():
                contender = partial(ours, precision, PYTHON, checkout=checkout)
                with running(contender, base_dir) as server:
                    check_precision(precision, base_dir)
                    loads = flood(server.port, load.invocations(bodies), arguments.overload)
                    found = asyncio.run(loads)
                rounds.setdefault(f"{name}{precision}", []).append(found)
                for kind, row in found.items():
                    figures = "  ".join(f"{key} {value:.4g}" for key, value in row.items())
                    print(f"{name}{precision}, {kind}: {figures}", flush=True)
    return {
        name: {kind: _medians([each[kind] for each in found]) for kind in found[0]}
        for name, found in rounds.items()
    }


def main() -> None:
    """Measure; print tables and one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with ants-bees.tar")
    parser.add_argument("--network", default="resnet18", help="torchvision's name")
    parser.add_argument("--side", type=int, help="shorter side of the photographs, in pixels")
    parser.add_argument("--rivals", type=Path, help="interpreter that has LitServe and TorchServe")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--seconds", type=float, default=4, help="seconds for each number of clients"
    )
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--overload", type=float, help="seconds for each kind of overload")
    parser.add_argument("--before", type=Path, help="another checkout to compare overload with")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        base_dir = Path(scratch)
        images = write_images(base_dir / "images", arguments.data, arguments.side)
        make_artifact(base_dir / "model", arguments.network, images)
        if INT8 in arguments.precisions:
            add_int8(base_dir / "model", images)
        results: Mapping[str, object]
        if arguments.overload:
            results = overload(arguments, base_dir, [path.read_bytes() for path in images])
        else:
            contenders: dict[str, Contender] = {FLASK: partial(rival, FLASK, PYTHON)}
            if arguments.rivals:
                others = [LITSERVE, *([TORCHSERVE] if shutil.which("java") else [])]
                contenders |= {name: partial(rival, name, arguments.rivals) for name in others}
            contenders |= {name: partial(ours, name, PYTHON) for name in arguments.precisions}
            rows = compare(contenders, base_dir, rounds=arguments.rounds, seconds=arguments.seconds)
            results = {name: _medians(measured) for name, measured in rows.items()}
    print(json.dumps({"results": results, "conditions": conditions(PACKAGES)}))


def _medians(rows: Sequence[Row]) -> Row:
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


if __name__ == "__main__":
    main()
