"""Training and serving in the two container images.

A job's folder and its channels are mounted under their paths on this machine, so that links,
messages and logs are the same in a container and outside of it.
"""

import os
import sys
import uuid
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

from container.classifier.environment import (
    BASE_DIR_VARIABLE,
    CACHE_DIR_VARIABLE,
    LIVE_VARIABLE,
    PAGE_VARIABLE,
    PORT_VARIABLE,
    cache_dir,
)
from container.classifier.errors import UserError
from image_classifier.platform.program import Program
from image_classifier.platform.sandbox.container_target import (
    SERVING_PORT,
    ContainerTarget,
    connect,
)
from image_classifier.platform.sandbox.launch import Launch, SandboxError, Target

TRAIN_IMAGE, SERVE_IMAGE = "image-classifier-train", "image-classifier-serve"

# The default of --containers and --processes.
CHOICE_VARIABLE = "IMAGE_CLASSIFIER_LOCAL"
CHOICES: Mapping[str, bool | None] = {"": None, "containers": True, "processes": False}

# The engine's network of servers; by default that of the engine.
NETWORK_VARIABLE = "IMAGE_CLASSIFIER_NETWORK"

# Files that the container writes belong to the owner of the job's folder.
_AS_OWNER = Path(__file__).with_name("as_owner.sh")

# For the engine's response.
ENGINE_SECONDS = 20


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
        with closing(connect(ENGINE_SECONDS)) as client:
            images = client.images.list(name=image)
    except SandboxError:
        if chosen is None:
            return False
        raise
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
) -> tuple[Target, Launch]:
    """Return a training job in a container of the sandbox.

    Args:
        base_dir: the job's folder, which stands for /opt/ml.
        channels: folders of images, mounted read-only.
        variables: environment variables of the program.
        has_network: whether it may download pretrained weights.

    Raises:
        UserError: the engine or the container image is missing.
    """
    base_dir = base_dir.resolve()
    # Shared with other jobs, also those in plain processes.
    cache = cache_dir()
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    mounts = {base_dir: True, cache.resolve(): True}
    launch = Launch(
        base_dir=base_dir,
        folders={},
        mounts={**mounts, **{channel.resolve(): False for channel in channels}},
        variables={
            **{name: os.environ[name] for name in _passed_names()},
            **variables,
            BASE_DIR_VARIABLE: str(base_dir),
            CACHE_DIR_VARIABLE: str(cache.resolve()),
            "TORCH_HOME": f"{cache.resolve()}/torch",
        },
        has_network=has_network,
        has_gpus=True,
    )
    entrypoint = ("sh", "-c", _AS_OWNER.read_text(), "--", "python", "-m", "container.training")
    return ContainerTarget(TRAIN_IMAGE, "train", entrypoint), launch


def live_variables() -> dict[str, str]:
    """Return the variables of a training whose progress is shown on this terminal, if it is one.

    The container's stderr is copied to the terminal.
    """
    return {LIVE_VARIABLE: "true"} if sys.stderr.isatty() else {}


def serving(
    base_dir: Path, port: int, address: str, variables: Mapping[str, str] | None = None
) -> Program:
    """Return a server in a container; it can only read the model.

    It outlives this process, which the sandbox's containers do not. The Docker client that starts
    it holds the lock of the folder.

    Args:
        base_dir: the folder that contains the model's folder.
        port: TCP port on this machine.
        address: IP address of this machine to listen on.
        variables: environment variables of the server.
    """
    own = {BASE_DIR_VARIABLE: "/opt/ml", PORT_VARIABLE: str(SERVING_PORT)}
    variables = {PAGE_VARIABLE: "true", **(variables or {}), **own}
    name = f"image-classifier-{uuid.uuid4().hex[:12]}"
    # Without a value, the client passes what its environment has.
    environment = [f"--env={key}" for key in sorted({*_passed_names(), *variables})]
    # The option is a line of CSV: a quoted path may contain commas.
    source = str((base_dir / "model").resolve()).replace('"', '""')
    mount = f'type=bind,"src={source}",dst=/opt/ml/model,readonly'
    client = ["docker", "run", "--rm", "--name", name, "--pull", "never", "--mount", mount]
    published = [f"--publish={address}:{port}:{SERVING_PORT}"]
    if network := os.environ.get(NETWORK_VARIABLE):
        published.append(f"--network={network}")
    return Program(
        command=[*client, *environment, *published, SERVE_IMAGE, "serve"],
        variables=variables,
        container=name,
    )


def _passed_names() -> set[str]:
    """Return the names of the variables of this process that containers get too."""
    names = {key for key in os.environ if key.startswith("SAGEMAKER_")}
    return names | ({"OMP_NUM_THREADS", "OMP_WAIT_POLICY"} & os.environ.keys())
