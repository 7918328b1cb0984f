"""Training and serving in the two container images, through the `docker` command.

A job's folder and its channels are mounted under their paths on this machine, so that links,
messages and logs are the same in a container and outside of it.
"""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import gettempdir

from container.classifier.environment import (
    BASE_DIR_VARIABLE,
    CACHE_DIR_VARIABLE,
    LIVE_VARIABLE,
    PAGE_VARIABLE,
    PORT_VARIABLE,
)
from container.classifier.errors import UserError
from image_classifier.platform.program import Program

TRAIN_IMAGE, SERVE_IMAGE = "image-classifier-train", "image-classifier-serve"

# The default of --containers and --processes.
CHOICE_VARIABLE = "IMAGE_CLASSIFIER_LOCAL"
CHOICES: Mapping[str, bool | None] = {"": None, "containers": True, "processes": False}

# The engine's network of servers; by default that of the engine.
NETWORK_VARIABLE = "IMAGE_CLASSIFIER_NETWORK"

# Files that the container writes belong to the owner of the job's folder.
_AS_OWNER = Path(__file__).with_name("as_owner.sh")

# The Docker client waits for an engine that does not respond.
ENGINE_SECONDS = 20

# Requests the engine's runtimes: with NVIDIA's, containers can use GPUs.
_RUNTIMES = ("info", "--format", "{{json .Runtimes}}")


class _EngineError(UserError):
    """The Docker engine cannot be used."""


def choose(image: str, *, chosen: bool | None) -> bool:
    """Return whether a program runs in a container of `image`.

    By default it does if an engine runs that has the container image.

    Args:
        image: its name.
        chosen: True for --containers, False for --processes, None for neither.

    Raises:
        UserError: containers are chosen but impossible, or the variable has another value.
    """
    if chosen is None:
        text = os.environ.get(CHOICE_VARIABLE, "")
        if text not in CHOICES:
            raise UserError(f"{CHOICE_VARIABLE} is {text!r}: expected containers or processes")
        chosen = CHOICES[text]
    if chosen is False:
        return False
    try:
        images = _ask_engine("image", "ls", "--quiet", image)
    except _EngineError as error:
        if chosen is None:
            return False
        raise UserError(f"no Docker engine ({error}): start it, or use --processes") from None
    if not images and chosen:
        raise UserError(
            f"no container image {image}: `docker compose build` in a checkout creates it; "
            "or use --processes"
        )
    return bool(images)


def training(
    base_dir: Path,
    channels: Iterable[Path],
    variables: Mapping[str, str],
    *,
    has_network: bool,
) -> Program:
    """Return a training job in a container.

    Args:
        base_dir: the job's folder, which stands for /opt/ml.
        channels: folders of images, mounted read-only.
        variables: environment variables of the program.
        has_network: whether it may download pretrained weights.
    """
    base_dir = base_dir.resolve()
    # Shared with other jobs, also those in plain processes.
    default = f"{gettempdir()}/image-classifier-{os.geteuid()}"
    cache = Path(os.environ.get(CACHE_DIR_VARIABLE) or default)
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    own = {
        BASE_DIR_VARIABLE: str(base_dir),
        CACHE_DIR_VARIABLE: str(cache.resolve()),
        "TORCH_HOME": f"{cache.resolve()}/torch",
    }
    options = [
        *([] if has_network else ["--network", "none"]),
        *(["--gpus", "all"] if "nvidia" in _ask_engine(*_RUNTIMES) else []),
        *_mount(base_dir),
        *_mount(cache.resolve()),
        *(part for channel in channels for part in _mount(channel.resolve(), is_read_only=True)),
    ]
    program = ["-c", _AS_OWNER.read_text(), "--", "python", "-m", "container.training", "train"]
    return _run(TRAIN_IMAGE, program, {**variables, **own}, [*options, "--entrypoint", "sh"])


def live_variables() -> dict[str, str]:
    """Return the variables of a training whose progress is shown on this terminal, if it is one.

    The container's stderr leads to the terminal through the Docker client.
    """
    return {LIVE_VARIABLE: "true"} if sys.stderr.isatty() else {}


def serving(
    base_dir: Path, port: int, address: str, variables: Mapping[str, str] | None = None
) -> Program:
    """Return a server in a container; it can only read the model.

    Args:
        base_dir: the folder that contains the model's folder.
        port: TCP port on this machine.
        address: IP address of this machine to listen on.
        variables: environment variables of the server.
    """
    model = _mount((base_dir / "model").resolve(), Path("/opt/ml/model"), is_read_only=True)
    own = {BASE_DIR_VARIABLE: "/opt/ml", PORT_VARIABLE: "8080"}
    variables = {PAGE_VARIABLE: "true", **(variables or {}), **own}
    network = os.environ.get(NETWORK_VARIABLE)
    options = ["--publish", f"{address}:{port}:8080", *model]
    options += ["--network", network] if network else []
    return _run(SERVE_IMAGE, ["serve"], variables, options)


def _run(
    image: str, arguments: Sequence[str], variables: Mapping[str, str], options: Sequence[str]
) -> Program:
    name = f"image-classifier-{uuid.uuid4().hex[:12]}"
    # Without a value, the client passes what its environment has.
    passed = {key for key in os.environ if key.startswith("SAGEMAKER_")}
    passed |= {"OMP_NUM_THREADS", "OMP_WAIT_POLICY", *variables}
    environment = [f"--env={key}" for key in sorted(passed)]
    client = ["docker", "run", "--rm", "--name", name, "--pull", "never"]
    return Program(
        command=[*client, *environment, *options, image, *arguments],
        variables=variables,
        container=name,
    )


def _mount(source: Path, target: Path | None = None, *, is_read_only: bool = False) -> list[str]:
    # The option is a line of CSV: a quoted path may contain commas.
    paths = {"src": source, "dst": target or source}
    fields = ['"{}={}"'.format(key, str(path).replace('"', '""')) for key, path in paths.items()]
    return ["--mount", ",".join(["type=bind", *fields, *(["readonly"] if is_read_only else [])])]


def _ask_engine(*arguments: str) -> str:
    """Run the Docker client; return its output.

    Raises:
        _EngineError: it failed, does not exist, or the engine does not respond.
    """
    try:
        return subprocess.run(
            ["docker", *arguments],  # noqa: S607 - the Docker client is on the PATH
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ENGINE_SECONDS,
            check=True,
        ).stdout.strip()
    except FileNotFoundError:
        raise _EngineError("no command docker") from None
    except subprocess.TimeoutExpired:
        raise _EngineError(f"no response within {ENGINE_SECONDS} s") from None
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or ["docker failed"]
        raise _EngineError(lines[-1]) from None
