"""How each server is started: ours and those that people use."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FLASK = "flask + gunicorn sync + torch"
LITSERVE = "litserve"
TORCHSERVE = "torchserve"

# One worker a core and one thread a worker, by which all of them are fastest.
TORCHSERVE_SETTINGS = """
inference_address=http://127.0.0.1:{port}
management_address=http://127.0.0.1:{port_1}
metrics_address=http://127.0.0.1:{port_2}
default_workers_per_model=2
disable_token_authorization=true
"""


@dataclass(frozen=True, slots=True)
class Command:
    """A program's arguments and what it wants in its environment."""

    arguments: Sequence[str]
    variables: dict[str, str]


def rival(name: str, python: Path, base_dir: Path, port: int) -> Command:
    """Return how a rival is started.

    Args:
        name: Which.
        python: An interpreter in whose environment it is installed.
        base_dir: Folder with the artifact in `model`, also for the server's files.
        port: TCP port to listen on.
    """
    variables = {
        "ARTIFACT": str(base_dir / "model"),
        # TorchServe starts its workers as `python`.
        "PATH": f"{python.parent}:{os.environ['PATH']}",
    }
    if name == FLASK:
        bind = ["--workers", "2", "--bind", f"127.0.0.1:{port}"]
        arguments = ["-m", "gunicorn", *bind, "benchmarks.rivals.flask_server:app"]
    elif name == LITSERVE:
        arguments = ["-m", "benchmarks.rivals.litserve_server", str(port)]
    else:
        arguments = ["-c", "from ts.model_server import start; start()", "--foreground", "--ncs"]
        arguments += _prepare_torchserve(python, base_dir / "torchserve", port)
    return Command([str(python), *arguments], variables)


def ours(precision: str, python: Path, base_dir: Path, port: int) -> Command:
    """Return how our server is started, in one of its precisions."""
    variables = {
        "SAGEMAKER_BASE_DIR": str(base_dir),
        "SAGEMAKER_BIND_TO_PORT": str(port),
        "SAGEMAKER_CLASSIFIER_PRECISION": precision,
    }
    return Command([str(python), "-m", "container.serving", "serve"], variables)


def _prepare_torchserve(python: Path, folder: Path, port: int) -> Sequence[str]:
    """Write its archive and settings; return the arguments that name them."""
    folder.mkdir(exist_ok=True)
    handler = Path(__file__).with_name("torchserve_handler.py")
    program = "from model_archiver.model_packaging import generate_model_archive as g; g()"
    arguments = ["--model-name", "model", "--version", "1", "--handler", str(handler)]
    subprocess.run(
        [str(python), "-c", program, *arguments, "--export-path", str(folder), "--force"],
        check=True,
    )
    settings = TORCHSERVE_SETTINGS.format(port=port, port_1=port + 1, port_2=port + 2)
    (folder / "config.properties").write_text(settings, encoding="utf-8")
    found = ["--model-store", str(folder), "--models", "model=model.mar"]
    return [*found, "--ts-config", str(folder / "config.properties")]
