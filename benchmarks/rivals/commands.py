"""Commands that start our server and the others."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.conditions import ROOT
from benchmarks.equal_training import Checkout

FLASK = "flask + gunicorn sync + torch"
LITSERVE = "litserve"
TORCHSERVE = "torchserve"

# All of them are fastest with one worker per core and one thread per worker.
TORCHSERVE_SETTINGS = """
inference_address=http://127.0.0.1:{port}
management_address=http://127.0.0.1:{port_1}
metrics_address=http://127.0.0.1:{port_2}
default_workers_per_model=2
disable_token_authorization=true
"""


@dataclass(frozen=True, slots=True)
class Command:
    """A command line and its environment variables."""

    arguments: Sequence[str]
    variables: dict[str, str]
    directory: Path


def rival(name: str, python: Path, base_dir: Path, port: int) -> Command:
    """Return the command of another server.

    Args:
        name: `FLASK`, `LITSERVE` or `TORCHSERVE`.
        python: Interpreter of the environment in which the server is installed.
        base_dir: Folder with the artifact in `model`; also for files of the server.
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
        # It writes logs to its working directory, and its workers have another one.
        variables["PYTHONPATH"] = str(ROOT)
        return Command([str(python), *arguments], variables, base_dir)
    return Command([str(python), *arguments], variables, ROOT)


def ours(
    precision: str,
    python: Path,
    base_dir: Path,
    port: int,
    *,
    checkout: Checkout | None = None,
    **variables: str,
) -> Command:
    """Return the command of our server, in a precision or, if empty, in the default one.

    `checkout` is another copy of the repository, whose server is started.
    """
    variables |= {
        "SAGEMAKER_BASE_DIR": str(base_dir),
        "SAGEMAKER_BIND_TO_PORT": str(port),
        "SAGEMAKER_CLASSIFIER_PRECISION": precision,
    }
    module, directory = (checkout or Checkout(ROOT)).program("serving")
    return Command([str(python), "-m", module, "serve"], variables, directory)


def bare(precision: str, python: Path, base_dir: Path, port: int) -> Command:
    """Return the command of a Flask view with our engine and nothing else, in a precision."""
    variables = {"ARTIFACT": str(base_dir / "model"), "PRECISION": precision}
    threads = ["--worker-class", "gthread", "--threads", "8", "--keep-alive", "75"]
    arguments = [*threads, "--bind", f"127.0.0.1:{port}", "benchmarks.rivals.bare_server:app"]
    return Command([str(python), "-m", "gunicorn", *arguments], variables, ROOT)


def _prepare_torchserve(python: Path, folder: Path, port: int) -> Sequence[str]:
    """Write the model archive and the settings; return their arguments."""
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
